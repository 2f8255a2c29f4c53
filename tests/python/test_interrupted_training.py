"""A run that is interrupted ends with a checkpoint and a word, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan-train"
# The schedule has an end of its own, so that runs of other lengths take the same steps.
OPTIONS = ["--optimizer.decay_steps", 50, "--parallel.threads_per_rank", 1, "--model.dtype", "f32"]


def call(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300, check=False)


def steps_of(folder: Path) -> list[tuple[int, int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["tokens"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ([PROGRAM], signal.SIGINT),
        ([PROGRAM], signal.SIGTERM),
        ([sys.executable, "-m", "evenspan", "train"], signal.SIGINT),
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(
    training_config: Path, tmp_path: Path, launcher: list[object], number: signal.Signals
) -> None:
    ranks = ["--ranks", 2] if launcher == [PROGRAM] else []
    words = [*launcher, training_config, *ranks, *OPTIONS, "--run.resume", "latest", "--run.folder"]
    with subprocess.Popen(
        [*map(str, words), str(tmp_path / "stopped"), "--run.steps", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a shell's foreground
    ) as running:
        assert running.stdout
        next(line for line in running.stdout if line.startswith("step"))
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number, out + err
    assert f"{number.name}: the run ends after the step or evaluation batch at work" in err
    assert f"stopped by {number.name} after step" in out
    assert "the same command with --run.resume latest" in out
    done = steps_of(tmp_path / "stopped")[-1][0]

    resumed = call(*words, tmp_path / "stopped", "--run.steps", done + 2)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed after step {done} from" in resumed.stdout
    assert "every step that is left keeps the learning rate that it had" in resumed.stdout
    straight = call(*words, tmp_path / "straight", "--run.steps", done + 2)
    assert straight.returncode == 0, straight.stderr
    assert steps_of(tmp_path / "stopped") == steps_of(tmp_path / "straight")
    name = f"checkpoints/step-{done + 2:08}/model.safetensors"
    ours, theirs = (load_file(tmp_path / run / name) for run in ("stopped", "straight"))
    assert all(ours[key].equal(theirs[key]) for key in theirs)


def held_out_of(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["evaluation"]["loss"]) for line in lines if "evaluation" in line]


def test_a_signal_in_an_evaluation_ends_it(training_config: Path, tmp_path: Path) -> None:
    """It once waited for all held-out documents and a step more."""
    many = tmp_path / "many.jsonl"
    many.write_text('{"text": "The quick brown fox jumps over the lazy dog."}\n' * 40000)
    words = [PROGRAM, training_config, *OPTIONS, "--data.path", many, "--data.held_out_fraction", 0.9]
    words += ["--run.eval_interval", 1, "--run.resume", "latest", "--run.folder"]
    with subprocess.Popen(
        [*map(str, words), str(tmp_path / "stopped"), "--run.eval_batches", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr
        next(line for line in running.stderr if "evaluating" in line)
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, out + err
    assert "held-out loss" not in out
    assert "stopped by SIGTERM after step 1 of 3" in out and "the same command with --run.resume latest" in out
    assert [step for step, _, _ in steps_of(tmp_path / "stopped")] == [1]

    for folder in ("stopped", "straight"):
        done = call(*words, tmp_path / folder, "--run.eval_batches", 2)
        assert done.returncode == 0, done.stderr
    assert steps_of(tmp_path / "stopped") == steps_of(tmp_path / "straight")
    assert held_out_of(tmp_path / "stopped") == held_out_of(tmp_path / "straight")


def test_metrics_that_cannot_be_written_end_the_run(training_config: Path, tmp_path: Path) -> None:
    """A file that may not grow is as a full disk; what was written before can be gone on from."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    words = [PROGRAM, training_config, *OPTIONS, "--run.folder", tmp_path / "run", "--run.steps", 20]
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=300, check=False, preexec_fn=small_files
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"cannot write {tmp_path}/run/metrics.jsonl: File too large" in done.stderr
    kept = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept[1:-1]] == list(range(1, len(kept) - 1))
    again = call(*words, "--run.resume", "latest")
    assert again.returncode == 0, again.stderr
    assert [step for step, _, _ in steps_of(tmp_path / "run")] == list(range(1, 21))


def test_a_full_standard_output_is_an_error(training_config: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([PROGRAM, training_config], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "standard output cannot be written" in done.stderr
