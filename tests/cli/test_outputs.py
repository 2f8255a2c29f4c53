"""Files that commands write: refused before anything is read or computed, whole or not at all."""

import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from program import BINARY, ROOT, Run

COMMANDS = {
    "plan": ["--json", "--text", "--html"],
    "simulate": ["--json", "--html", "--trace"],
    "explain": ["--json"],
    "batch": ["--json", "--html"],
}
NEEDED = {"batch": ["--memory-bytes", "160GiB"]}
OPTIONS = [(command, option) for command, options in COMMANDS.items() for option in options]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent/out", 'cannot be written: No such file or directory; make its folder first, "absent"'),
        (".", "cannot be written: it is a folder; name a file in it"),
        ("folder/", "cannot be written: it is a folder; name a file in it"),
        ("file/out", "cannot be written: Not a directory; "),
        ("x" * 300, "cannot be written: File name too long; "),
    ],
)
def test_outputs_are_checked_first(
    evenspan: Run, tmp_path: Path, command: str, option: str, path: str, reason: str
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    words = ["--lengths", "not-there.txt", "--ranks", 2, *NEEDED.get(command, [])]  # the lengths are read later
    done = evenspan(command, *words, option, path)
    assert done.returncode == 2
    assert reason in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_failure_leaves_files_alone(evenspan: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "out.json").write_text("kept")
    words = ["--lengths", "-", "--ranks", 2, *NEEDED.get(command, []), "--json", "out.json"]
    done = evenspan(command, *words, stdin="5\n0\n")
    assert done.returncode == 2
    assert (tmp_path / "out.json").read_text() == "kept"
    assert os.listdir(tmp_path) == ["out.json"]
    done = evenspan(command, *words, stdin="500\n40\n")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").read_text().startswith("{")
    assert os.listdir(tmp_path) == ["out.json"]


def test_names_of_any_length_that_files_have(evenspan: Run, tmp_path: Path) -> None:
    name = "x" * 255
    assert evenspan("plan", "--lengths", "-", "--ranks", 2, "--json", name, stdin="5\n").returncode == 0
    assert os.listdir(tmp_path) == [name]


def test_files_that_would_meet(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "lengths.txt").write_text("500\n")
    plan = ["plan", "--ranks", 2]
    done = evenspan(*plan, "--lengths", "lengths.txt", "--json", "a", "--text", "./a")
    assert done.returncode == 2 and '--json and --text both go to "./a"' in done.stderr
    done = evenspan(*plan, "--lengths", "lengths.txt", "--json", "lengths.txt")
    assert done.returncode == 2 and "--json would replace lengths.txt, which --lengths reads" in done.stderr
    done = evenspan(*plan, "--lengths", "-", "--profile", "-", stdin="500\n")
    assert done.returncode == 2 and "--lengths and --profile both read standard input" in done.stderr
    assert os.listdir(tmp_path) == ["lengths.txt"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--dtype", "int8"], "element type"),
        (["--mask", "half"], 'mask is "half"'),
        (["--heads", 7], "8 kv heads do not divide 7 heads"),
        (["--strategy", "rign"], "did you mean 'ring'?"),
        (["--memory-budget", -1], "memory budget"),
        (["--ranks-per-node", -1], "-1 ranks"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "simulate", "explain"])
def test_options_are_checked_before_lengths_are_read(
    evenspan: Run, command: str, words: list[object], reason: str
) -> None:
    done = evenspan(command, "--lengths", "not-there.txt", "--ranks", 2, *words)
    assert done.returncode == 2
    assert reason in done.stderr


def test_long_work_says_how_far_it_is() -> None:
    """A pipe gets a line after two seconds. The command is mostly stopped here, so that it takes them anywhere."""
    lengths = ROOT / "bench" / "data" / "prolong_20000.txt"
    words = [
        "simulate",
        "--lengths",
        lengths,
        "--ranks",
        "1024",
        "--ranks-per-node",
        "8",
        "--strategy",
        "sequence_aware",
    ]
    with subprocess.Popen([BINARY, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not select.select([process.stderr], [], [], 0.01)[0]:  # readable at its end, too
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            process.send_signal(signal.SIGCONT)
        line = process.stderr.readline()
        process.kill()
    assert line.startswith("evenspan simulate: ")
    assert line.endswith((" left\n", " so far\n"))
