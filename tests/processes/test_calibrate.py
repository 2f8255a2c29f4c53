"""`evenspan calibrate`, ranks as threads and as processes: `evenspan simulate` takes the profile that it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import evenspan  # noqa: F401, torchrun starts it
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHAPE = ["--heads", "4", "--kv-heads", "2", "--head-dim", "16", "--dtype", "f32"]
SMALL = [*SHAPE, "--longest", "100", "--seconds", "0"]


def call(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run([*map(str, words)], env=environment, input=stdin, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("start", [[PROGRAM], [*TORCHRUN, "-m", "evenspan"]], ids=["threads", "processes"])
def test_simulate_takes_what_calibrate_writes(tmp_path: Path, start: list[object]) -> None:
    file = tmp_path / "mine.json"
    done = call(*start, "calibrate", "--out", file, "--name", "mine", *SMALL)
    assert done.returncode == 0, done.stderr
    profile = json.loads(file.read_text())
    assert (profile["name"], profile["ranks_per_node"]) == ("mine", 2)
    assert profile["about"].startswith("2 ranks, 2 a node, of 1 threads on cpu")
    assert {"times", "attention", "memory", "flops", "links", "exchange"} <= profile["sources"].keys()
    times = profile["attention"][0]
    assert (times["head_dim"], times["dtypes"]) == (16, ["f32"])
    assert times["queries"] == times["keys"] == [19, 27, 43, 75, 100]
    assert [len(row) for row in times["forward"]["seconds"]] == [5] * 5
    assert len(times["backward"]["square_seconds"]) == len(times["squares"])
    words = ["simulate", "--lengths", "-", "--ranks", 2, "--profile", file, *SHAPE, "--json", "out.json"]
    done = subprocess.run(
        [PROGRAM, *map(str, words), "--strategy", "auto,ring,ulysses"],
        input="300\n90\n7\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads((tmp_path / "out.json").read_text())
    assert got["profile"] == "mine"
    assert all(strategy["step_seconds"] > got["lower_bound_seconds"] for strategy in got["strategies"])


def test_standard_output_holds_the_profile_alone() -> None:
    done = call(PROGRAM, "calibrate", "-o", "-", "-q", *SMALL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "calibrated"
    assert done.stderr.startswith("profile: - (2 ranks")


def test_long_measuring_says_how_far_it_is() -> None:
    done = call(PROGRAM, "calibrate", "--out", "-", *SMALL, "--seconds", 3)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stderr.splitlines()
    assert re.fullmatch(r"evenspan calibrate: \d+ %, .* left", first)
    assert last.startswith("profile: - (2 ranks")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--heads", "4"], "[options] --out is missing"),
        (["--out", "x.json", "--longes", "9"], "no option \"--longes\"; see --help; did you mean '--longest'?"),
        (["--out", "x.json", "--ranks", "1"], "there is 1; give at least 2"),
        (["--out", "/nowhere/x.json"], '"/nowhere/x.json" cannot be written: No such file'),
        (["--out", "."], '"." cannot be written: it is a folder; name a file in it'),  # once after minutes of measuring
        (["--out", "x.json", "--quiet=yes"], "--quiet takes no value"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: list[str], text: str) -> None:
    done = subprocess.run([PROGRAM, "calibrate", *words], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("evenspan calibrate: ["), done.stderr
    assert text in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_options_in_both_forms() -> None:
    listed = [line for line in call(PROGRAM, "calibrate", "--help").stdout.splitlines() if line.startswith("  -")]
    assert len(listed) == 13
    done = call(sys.executable, "-m", "evenspan", "calibrate", "--help")
    assert done.returncode == 0, done.stderr
    assert all(line in done.stdout for line in listed)


def test_processes_have_no_ranks_option() -> None:
    done = call(sys.executable, "-m", "evenspan", "calibrate", "--out", "-", "--ranks", 2)
    assert done.returncode == 2
    assert "the ranks are processes here: torchrun --nproc-per-node N" in done.stderr
