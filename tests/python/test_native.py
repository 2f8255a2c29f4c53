"""`python -m evenspan`: commands of the program `evenspan`, and its version."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import evenspan
import pytest
from command import run
from evenspan import _native
from evenspan.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def test_there_is_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    of_build = re.search(r"^project\(evenspan VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.M)
    assert of_build
    assert evenspan.__version__ == of_build[1]
    for words in (["version"], ["--version"], ["-V"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"evenspan {of_build[1]}\n"
    assert subprocess.check_output([_native.program(), "version"], text=True) == f"evenspan {of_build[1]}\n"


def test_commands_of_the_program_are_passed_on() -> None:
    words = ["plan", "--lengths", "-", "--ranks", "2", "--text", "-", "-q"]
    passed = run(*words, stdin="900\n30\n")
    direct = subprocess.run([_native.program(), *words], input="900\n30\n", capture_output=True, text=True)
    assert passed.returncode == direct.returncode == 0
    assert passed.stdout == direct.stdout
    refused = run("plan", "--ranks", "2")
    assert refused.returncode == 2
    assert refused.stderr.endswith("evenspan plan: [options] --lengths is missing; see evenspan plan --help\n")


def test_all_native_commands_are_known() -> None:
    help_text = subprocess.check_output([_native.program(), "--help"], text=True)
    listed = re.findall(r"^  (\w+) ", help_text, re.M)
    assert set(listed) - {"calibrate", "train", "version"} == set(_native.COMMANDS)


def test_unknown_commands_get_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulat"]) == 2
    assert "there is no command 'simulat'; there are train, " in (text := capsys.readouterr().err)
    assert text.endswith("did you mean 'simulate'?\n")


def test_a_program_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_native, "_folders", lambda: iter([tmp_path]))
    assert main(["plan", "--help"]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"evenspan plan: [start] the program evenspan is in none of {tmp_path}; install evenspan ")
