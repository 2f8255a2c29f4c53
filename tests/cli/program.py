"""The program `evenspan` under test: the one that EVENSPAN_BIN names, by default build/bin/evenspan."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("EVENSPAN_BIN", ROOT / "build" / "bin" / "evenspan"))
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}

Run = Callable[..., subprocess.CompletedProcess[str]]
