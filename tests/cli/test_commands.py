"""The commands of `evenspan` as a whole: help, version, names, programs beside it."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from program import BINARY, ROOT, Run


def test_help_lists_all_commands(evenspan: Run) -> None:
    for words in (["--help"], ["-h"], ["help"]):
        done = evenspan(*words)
        assert done.returncode == 0
        for command in ("plan", "verify", "simulate", "batch", "strategies", "calibrate", "train"):
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
    "batch": [
        "--lengths",
        "--ranks",
        "--ranks-per-node",
        "--topology",
        "--profile",
        "--model",
        "--dtype",
        "--memory-bytes",
        "--states",
        "--constants",
        "--context-limit",
        "--published-lengths",
        "--global-batch-documents",
        "--global-batch-tokens",
        "--first-step",
        "--num-steps",
        "--planner",
        "--solver-seconds",
        "--paper-slots",
        "--highs",
        "--static-degree",
        "--json",
        "--html",
        "--no-times",
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
        assert re.search(rf"\n  (-\w,)?{option}\s", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert evenspan("help", command).stdout == done.stdout


def test_help_names_what_is_shipped_and_no_idle_defaults(evenspan: Run) -> None:
    for command in ("plan", "simulate", "explain", "batch"):
        words = " ".join(evenspan(command, "--help").stdout.split())
        for profile in (ROOT / "profiles").glob("*.json"):
            assert re.search(rf"[( ]{profile.stem}[,)]", words)
        assert "Ranks to plan for -" in words  # once (default 0)
    assert "required but with --constants --states" in words


def test_there_is_one_version(evenspan: Run) -> None:
    of_build = re.search(r"^project\(evenspan VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.M)
    assert of_build
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == of_build[1]
    for words in (["--version"], ["-V"], ["version"], ["plan", "--version"]):
        done = evenspan(*words)
        assert (done.returncode, done.stdout) == (0, f"evenspan {of_build[1]}\n")
    for program in BINARY.parent.glob("evenspan-*"):
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (0, f"evenspan {of_build[1]}\n"), program


def test_short_options_are_the_long_ones(evenspan: Run) -> None:
    short = ["-l", "-", "-r", 4, "-s", "zigzag", "-d", "float32", "-q"]
    full = ["--lengths", "-", "--ranks", 4, "--strategy", "zigzag", "--dtype", "f32", "--quiet"]
    texts = [evenspan("plan", *words, "--text", "-", stdin="900\n70\n").stdout for words in (short, full)]
    assert texts[0].startswith("evenspan plan ")
    assert texts[0] == texts[1]
    short = ["-l", "-", "-r", 4, "-s", "mixed", "-p", "a100-40gb-ib", "--json", "-"]
    done = evenspan("simulate", *short, stdin="900\n70\n")
    assert '"profile": "a100-40gb-ib"' in done.stdout


def completed(script: str, folder: Path, *words: str) -> list[str]:
    """What bash proposes for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    run = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _evenspan; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_and_values(evenspan: Run, tmp_path: Path) -> None:
    done = evenspan("completion", "bash")
    assert done.returncode == 0
    script = done.stdout
    (tmp_path / "lengths.txt").write_text("9\n")
    assert completed(script, tmp_path, "evenspan", "pl") == ["plan"]
    assert completed(script, tmp_path, "evenspan", "plan", "--ranks-per-") == ["--ranks-per-node", "--ranks-per-group"]
    assert completed(script, tmp_path, "evenspan", "plan", "--strategy", "zig") == ["zigzag", "zigzag_all_gather"]
    assert completed(script, tmp_path, "evenspan", "explain", "-s", "au") == ["auto"]
    assert completed(script, tmp_path, "evenspan", "simulate", "-p", "h100") == ["h100-sxm", "h100-sxm-fa3"]
    assert completed(script, tmp_path, "evenspan", "plan", "--dtype", "floa") == ["float16", "float32", "float64"]
    assert completed(script, tmp_path, "evenspan", "plan", "--mask", "w") == ["window:"]
    assert completed(script, tmp_path, "evenspan", "batch", "--planner", "sta") == ["static"]
    assert completed(script, tmp_path, "evenspan", "batch", "--constants", "flexsp-1") == ["flexsp-13b"]
    assert completed(script, tmp_path, "evenspan", "batch", "--states", "o") == ["optimizer"]
    assert completed(script, tmp_path, "evenspan", "batch", "--highs", "len") == ["lengths.txt"]
    assert completed(script, tmp_path, "evenspan", "plan", "--lengths", "len") == ["lengths.txt"]
    assert completed(script, tmp_path, "evenspan", "verify", "len") == ["lengths.txt"]
    assert completed(script, tmp_path, "evenspan", "plan", "--ranks", "") == []
    if (BINARY.parent / "evenspan-calibrate").exists():
        assert completed(script, tmp_path, "evenspan", "calibrate", "--thr") == ["--threads"]


def test_completion_of_other_shells(evenspan: Run) -> None:
    assert "bashcompinit" in evenspan("completion", "zsh").stdout
    fish = evenspan("completion", "fish").stdout
    assert "complete -c evenspan -n __fish_use_subcommand -a plan " in fish
    assert "complete -c evenspan -n '__fish_seen_subcommand_from plan' -s r -l ranks -r -d " in fish
    done = evenspan("completion", "csh")
    assert done.returncode == 2
    assert 'no completion for the shell "csh"; give bash, zsh or fish' in done.stderr


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
        "balanced_ring",
        "mesh",
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
    assert evenspan("compare", "a", "b").stderr.endswith("did you mean 'train compare'?\n")
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
