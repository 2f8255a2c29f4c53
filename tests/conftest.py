"""A training run of seconds, for every folder of tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MODEL = {
    "model_type": "llama",
    "vocab_size": 257,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 128,
}


@pytest.fixture
def training_config(tmp_path: Path) -> Path:
    """Write a model, nine texts and a configuration for them."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "text").mkdir()
    for i in range(9):
        (tmp_path / "text" / f"{i}.txt").write_text("The quick brown fox. " * i)
    path = tmp_path / "run.toml"
    path.write_text(
        "[data]\npath = 'text'\nmax_document_tokens = 100\nbatch_tokens = 300\n"
        "[model]\nconfig = 'config.json'\ndtype = 'float64'\n[optimizer]\nlearning_rate = 1e-2\n[run]\nsteps = 3\n"
    )
    return path
