"""The program `evenspan` under test: the one that EVENSPAN_BIN names, by default build/bin/evenspan."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("EVENSPAN_BIN", ROOT / "build" / "bin" / "evenspan"))

Run = Callable[..., subprocess.CompletedProcess[str]]
