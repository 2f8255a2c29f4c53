"""The commands of `evenspan` as a whole: help, version, names, programs beside it."""

import os
import shutil
from pathlib import Path

import pytest
from program import BINARY, Run


def test_help_lists_all_commands(evenspan: Run) -> None:
    for words in (["--help"], ["-h"], ["help"]):
        done = evenspan(*words)
        assert done.returncode == 0
        for command in ("plan", "verify", "simulate", "strategies", "calibrate", "train"):
            assert f"\n  {command} " in done.stdout


def test_without_a_command_the_help_is_an_error(evenspan: Run) -> None:
    done = evenspan()
    assert done.returncode == 2
    assert "Usage: evenspan COMMAND" in done.stdout


OPTIONS = {
    "plan": [
        "--lengths",
        "--ranks",
        "--ranks-per-node",
        "--topology",
        "--strategy",
        "--heads",
        "--kv-heads",
        "--head-dim",
        "--dtype",
        "--mask",
        "--token-slack",
        "--ranks-per-group",
        "--stripe-tokens",
        "--memory-budget",
        "--json",
        "--text",
        "--verify",
    ],
    "simulate": [
        "--lengths",
        "--ranks",
        "--ranks-per-node",
        "--topology",
        "--profile",
        "--model",
        "--strategy",
        "--heads",
        "--kv-heads",
        "--head-dim",
        "--dtype",
        "--mask",
        "--token-slack",
        "--ranks-per-group",
        "--stripe-tokens",
        "--memory-budget",
        "--json",
        "--trace",
    ],
    "verify": ["FILE"],
    "strategies": [],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command(evenspan: Run, command: str) -> None:
    done = evenspan(command, "--help")
    assert done.returncode == 0
    assert f"Usage: evenspan {command}" in done.stdout
    assert "Examples:\n" in done.stdout
    for option in OPTIONS[command]:
        assert f"\n  {option} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert evenspan("help", command).stdout == done.stdout


def test_version(evenspan: Run) -> None:
    done = evenspan("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("evenspan 0.")


def test_strategies(evenspan: Run) -> None:
    done = evenspan("strategies")
    assert done.returncode == 0
    for name in (
        "local",
        "ring",
        "zigzag",
        "striped",
        "all_gather",
        "zigzag_all_gather",
        "ulysses",
        "usp",
        "token_ring",
        "disaggregated",
        "sequence_aware",
        "hierarchical",
        "mixed",
    ):
        assert f"{name} " in done.stdout
    assert "(P-1) N 2KDe" in done.stdout
    for name in ("ring", "all_gather", "pipelined", "logarithmic", "two_level"):
        assert f"\n{name} " in done.stdout.split("States of linear layers")[1]


def test_an_unknown_command_gets_the_nearest(evenspan: Run) -> None:
    done = evenspan("paln")
    assert done.returncode == 2
    assert 'there is no command "paln"; there are ' in done.stderr
    assert done.stderr.endswith("did you mean 'plan'?\n")
    done = evenspan("x/../plan")
    assert done.returncode == 2
    assert "there is no command" in done.stderr


def test_full_standard_output_is_an_error(tmp_path: Path) -> None:
    code = os.system(f"'{BINARY}' --help > /dev/full 2> '{tmp_path / 'errors'}'")
    assert os.waitstatus_to_exitcode(code) == 2
    assert "standard output cannot be written" in (tmp_path / "errors").read_text()


def test_programs_beside_it_are_commands(evenspan: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    binary = Path(shutil.copy(BINARY, folder))
    assert "not built here" in evenspan("--help", binary=binary).stdout
    done = evenspan("train", "config.toml", binary=binary)
    assert done.returncode == 2
    assert "which is not built here" in done.stderr

    for name in ("evenspan-calibrate", "evenspan-train"):
        program = folder / name
        program.write_text('#!/bin/sh\necho "$0" "$@"\nexit 7\n')
        program.chmod(0o755)
    assert "not built here" not in evenspan("--help", binary=binary).stdout
    done = evenspan("train", "a b", "--ranks", 4, binary=binary)
    assert done.returncode == 7
    assert done.stdout == f"{program} a b --ranks 4\n"
