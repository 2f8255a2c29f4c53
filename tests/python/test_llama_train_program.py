"""The program evenspan-train as a user meets it: help, mistakes, runs compared."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from browser import SVG_READER, in_browser

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan-train"


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in (PROGRAM, *arguments)], capture_output=True, text=True, check=False)


def test_help_lists_every_key() -> None:
    done = call("--help")
    assert done.returncode == 0
    header = (ROOT / "include/evenspan/train/config.h").read_text()
    for section, struct in {
        "data": "DataConfig",
        "model": "ModelSection",
        "optimizer": "OptimizerConfig",
        "parallel": "ParallelConfig",
        "run": "RunConfig",
    }.items():
        body = re.search(rf"struct {struct} {{(.*?)}};", header, re.DOTALL)
        assert body
        fields = re.findall(r"(\w+)(?: = [^;]*)?;", body[1])
        assert fields
        for field in fields:
            assert f"--{section}.{field} " in done.stdout
    for command in ("compare", "probe"):
        assert call(command, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one CONFIG file is needed"),
        (["none.toml"], '"none.toml" cannot be read: No such file or directory; name a file that is there'),
        (["CONFIG", "--optimizer.learningrate", "1"], "did you mean 'optimizer.learning_rate'?"),
        (["CONFIG", "--rank", "2"], "did you mean --ranks?"),
        (["CONFIG", "--ranks", "0"], "--ranks must be a whole number from 1 to"),
        (["CONFIG", "--ranks", "2000"], "2000 ranks are more threads than one process serves, at most 1024"),
        (["CONFIG", "--run.steps", "0"], "run.steps must be from 1"),
        (["CONFIG", "--run.resume", "none"], "none does not exist"),
        (["CONFIG", "--run.folder", "/proc/none"], "cannot make the folder /proc/none"),
        (["CONFIG", "--parallel.ranks_per_group", "3", "--ranks", "2"], "do not divide 2 ranks"),
        (["CONFIG", "--run.steps"], "--run.steps needs a value after it"),
        (["CONFIG", "--parallel.strategy", "zigzga"], "zigzag"),
        (["compare", "a"], "RUN and REFERENCE are needed"),
        (["compare", "a", "b"], "must be the run.folder of a finished run"),
        (["compare", "a", "b", "--page", "/nowhere/page.html"], "page.html"),
    ],
)
def test_mistakes_are_explained(training_config: Path, arguments: list[str], message: str) -> None:
    done = call(*[training_config if a == "CONFIG" else a for a in arguments])
    assert done.returncode == 2
    assert not done.stdout  # nothing is said or read before all is checked
    assert message in done.stderr
    assert done.stderr.startswith("evenspan train: [")


def test_a_refused_run_leaves_no_folders(training_config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call(training_config, f"--data.path={tmp_path / 'empty'}", f"--run.folder={tmp_path / 'new' / 'run'}")
    assert done.returncode == 2 and "must hold a text file" in done.stderr
    assert not (tmp_path / "new").exists()


def test_runs_are_compared(training_config: Path, tmp_path: Path) -> None:
    for ranks in (1, 4):
        done = call(
            training_config, "--ranks", ranks, f"--run.folder={tmp_path / str(ranks)}", "--run.record_placement", "true"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(" tokens/s ") == 2  # the first step and the last
        assert all(f" {word} " in done.stdout for word in ("loss", "rate", "norm", "left"))
    assert call(training_config, "--run.folder", tmp_path / "other", "--model.seed", 5).returncode == 0
    equal = call("compare", tmp_path / "4", tmp_path / "1", "--page", tmp_path / "report.html")
    assert equal.returncode == 0, equal.stdout + equal.stderr
    assert equal.stdout.count("EQUAL") == 1
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"<script|https?://|<link|@import|url\(", page)  # nothing from outside
    for width in (420, 1200):
        assert in_browser(tmp_path / "report.html", SVG_READER, width) == {"unreadable": "", "wide": "false"}
    different = call("compare", tmp_path / "4", tmp_path / "other")
    assert different.returncode == 1
    assert "NOT EQUAL" in different.stdout
