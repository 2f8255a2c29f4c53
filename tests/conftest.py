"""A training run of seconds and profiles of small machines, for every folder of tests."""

from __future__ import annotations

import json
from collections.abc import Callable
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


@pytest.fixture
def write_profile(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes the profile of a machine of nodes of four, measured for heads of one dimension and type."""

    def write(head_dim: int, dtype: str, bytes_per_second: float = 1e9) -> Path:
        times = {"operation_seconds": 0, "segment_seconds": 0, "seconds": [[1e-6]]}
        attention = {"head_dim": head_dim, "dtypes": [dtype], "tile": 1, "queries": [10], "keys": [10]}
        text = {
            "name": "test",
            "attention": [{**attention, "forward": times, "backward": times}],
            "memory_bytes_per_second": 1e12,
            "memory_operation_seconds": 0,
            "forward_flops_per_second": 1e15,
            "backward_flops_per_second": 1e15,
            "ranks_per_node": 4,
            "links": [{"latency_seconds": 0, "bytes_per_second": bytes_per_second}],
        }
        path = tmp_path / f"{bytes_per_second:g}.json"
        path.write_text(json.dumps(text))
        return path

    return write
