"""`torchrun -m evenspan train`, a process a rank, trains as `evenspan-train`, a thread a rank, does: bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import evenspan  # noqa: F401, torchrun starts it
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan-train"


def call(*words: object) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(folder: Path) -> list[float]:
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [step["loss"] for step in steps if "loss" in step]


@pytest.mark.parametrize(("dtype", "ranks", "replicas"), [("float32", 2, 1), ("float64", 2, 1), ("float32", 4, 2)])
def test_processes_train_as_threads_do(
    training_config: Path, tmp_path: Path, dtype: str, ranks: int, replicas: int
) -> None:
    words = [training_config, "--model.dtype", dtype, "--parallel.threads_per_rank", 1]
    words += ["--parallel.replicas", replicas, "--run.folder"]
    call(PROGRAM, *words, tmp_path / "threads", "--ranks", ranks)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
    call(*torchrun, "-m", "evenspan", "train", *words, tmp_path / "processes")
    found = losses(tmp_path / "processes")
    assert len(found) == 3
    assert found == losses(tmp_path / "threads")
    weights = "checkpoints/step-00000003/model.safetensors"
    ours, theirs = (load_file(tmp_path / run / weights) for run in ("processes", "threads"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_torchrun_stops_all_processes_after_one_step(training_config: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun reaches every process; thread ranks go on with what the processes kept."""
    words = [training_config, "--parallel.threads_per_rank", 1, "--optimizer.decay_steps", 50, "--run.resume", "latest"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    command = [
        *torchrun,
        "-m",
        "evenspan",
        "train",
        *words,
        "--run.folder",
        tmp_path / "stopped",
        "--run.steps",
        1000000,
    ]
    with subprocess.Popen(
        [*map(str, command)],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout
        next(line for line in running.stdout if line.startswith("step"))
        running.send_signal(signal.SIGTERM)
        said, _ = running.communicate(timeout=120)
    done = len(losses(tmp_path / "stopped"))
    assert f"stopped by SIGTERM after step {done} of 1000000" in said, said
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == [f"step-{done:08}"]
    for folder in ("stopped", "straight"):
        call(PROGRAM, *words, "--ranks", 2, "--run.folder", tmp_path / folder, "--run.steps", done + 2)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
