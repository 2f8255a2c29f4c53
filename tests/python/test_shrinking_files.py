"""Files that are shorter than they say, or become so while a run reads them: errors that name them, and no signals."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from evenspan._tokenize import write_indexed

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan-train"


def words(config: Path, *options: object) -> list[str]:
    return [str(word) for word in (PROGRAM, config, "--parallel.threads_per_rank", 1, *options)]


def call(config: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(config, *options), capture_output=True, text=True, timeout=300, check=False)


def cut(path: Path, left: float) -> None:
    os.truncate(path, int(path.stat().st_size * left))


@pytest.fixture
def data(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Write documents of the wanted kind, and return what a user gives as data.path."""
    texts = ["The quick brown fox. " * i for i in range(1, 9)]
    if request.param == "jsonl":
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return path
    if request.param == "folder":
        (tmp_path / "one").mkdir()
        path = tmp_path / "one" / "all.txt"
        path.write_text("".join(texts))
        return path
    write_indexed([np.frombuffer(text.encode(), np.uint8) for text in texts], tmp_path / "tokens", 257)
    return tmp_path / "tokens.bin"


@pytest.mark.parametrize("data", ["megatron", "jsonl", "folder"], indirect=True)
@pytest.mark.parametrize("ranks", [1, 2])
def test_data_that_shrink_while_a_run_reads_them(training_config: Path, data: Path, ranks: int) -> None:
    path = data.parent if data.suffix == ".txt" else data
    options = ["--data.path", path, "--run.steps", 1000000, "--ranks", ranks]
    size = data.stat().st_size
    with subprocess.Popen(
        words(training_config, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        next(line for line in running.stdout if line.startswith("step"))
        cut(data, 0.1)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 2, err
    left = data.stat().st_size
    assert f"[data] {data} had {size} bytes when it was opened first and has {left} now" in err


@pytest.mark.parametrize("data", ["megatron"], indirect=True)
def test_tokens_that_are_shorter_than_their_index(training_config: Path, data: Path) -> None:
    cut(data, 0.5)
    done = call(training_config, "--data.path", data)
    assert done.returncode == 2, done.stderr
    assert f"[data] {data} is truncated: sequence " in done.stderr and "copy it again" in done.stderr
    cut(data.with_suffix(".idx"), 0.5)
    done = call(training_config, "--data.path", data)
    assert done.returncode == 2, done.stderr
    assert f"{data.with_suffix('.idx')} is not a Megatron index: it is truncated" in done.stderr


@pytest.mark.parametrize("data", ["jsonl"], indirect=True)
def test_json_lines_that_are_cut(training_config: Path, data: Path) -> None:
    os.truncate(data, data.stat().st_size - 3)
    done = call(training_config, "--data.path", data)
    assert done.returncode == 2, done.stderr
    assert f"[data] {data}:8 is no JSON" in done.stderr


def test_weights_that_are_shorter_than_their_header(training_config: Path, tmp_path: Path) -> None:
    done = call(training_config, "--run.steps", 1, "--run.folder", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000001"
    weights = checkpoint / "model.safetensors"
    for left in (0.9, 0.01):  # in the tensors, and in the header
        cut(weights, left)
        done = call(training_config, "--data.tokenizer", "bytes", "--model.weights", checkpoint)
        assert done.returncode == 2, done.stderr
        assert f"[safetensors] {weights} is malformed or truncated" in done.stderr
        done = call(training_config, "--run.resume", checkpoint)
        assert done.returncode == 2, done.stderr
        assert f"{checkpoint} is broken: model.safetensors" in done.stderr


def test_metrics_of_another_run(training_config: Path, tmp_path: Path) -> None:
    """They were cut to the checkpoint's step and gone on with, whatever they were of."""
    done = call(training_config, "--run.steps", 2, "--run.folder", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if '{"step":2' not in line))
    resumed = ["--run.steps", 3, "--run.folder", tmp_path / "run", "--run.resume", "latest"]
    done = call(training_config, *resumed)
    assert done.returncode == 2, done.stdout
    assert f"[metrics] {metrics} ends with step 1 and the checkpoint is of step 2; " in done.stderr
    metrics.rename(tmp_path / "elsewhere")
    done = call(training_config, *resumed)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line).get("step") for line in metrics.read_text().splitlines()] == [None, 3, None]
