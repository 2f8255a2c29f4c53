"""`evenspan verify`: plans as text, whole and damaged."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from program import ROOT, Run

GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.txt"))


def test_there_are_golden_plans() -> None:
    assert len(GOLDEN) >= 9


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_plans_are_proven(evenspan: Run, path: Path) -> None:
    done = evenspan("verify", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{path}: proven (coverage, dataflow, matching, result, memory) for ")


@pytest.fixture
def text(evenspan: Run, tmp_path: Path) -> str:
    """A plan of two ranks, of which one needs keys and values of the other."""
    done = evenspan("plan", "--lengths", "-", "--ranks", 2, "--text", "plan.txt", stdin="40\n")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "plan.txt").read_text()


def test_reads_files_gzip_and_standard_input(evenspan: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.txt.gz").write_bytes(gzip.compress(text.encode()))
    for word, stdin in [("plan.txt", ""), ("plan.txt.gz", ""), ("-", text)]:
        done = evenspan("verify", word, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "proven" in done.stdout


def test_text_goes_through_a_pipe(evenspan: Run, text: str) -> None:
    done = evenspan("plan", "--lengths", "-", "--ranks", 2, "--text", "-", stdin="40\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == text
    assert done.stderr.startswith("mixed: 1 document, 40 tokens on 2 ranks")


def line_of(text: str, pattern: str) -> int:
    """The number of the first line in which the pattern is found."""
    return next(i for i, line in enumerate(text.splitlines(), 1) if re.search(pattern, line))


@pytest.mark.parametrize(
    "pattern",
    [
        r"^  exchange .* to ",  # a rank waits for what nobody sends
        r"^  attend ",  # pairs that nobody computes
        r"^  attend_gradient ",
    ],
)
def test_a_dropped_operation_is_refused(evenspan: Run, text: str, pattern: str) -> None:
    lines = text.splitlines(keepends=True)
    del lines[line_of(text, pattern) - 1]
    done = evenspan("verify", "-", stdin="".join(lines))
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("standard input:")
    assert done.stdout.endswith("standard input: refused\n")


def test_a_finding_names_the_line(evenspan: Run, text: str) -> None:
    number = line_of(text, r"^  attend ")
    lines = text.splitlines(keepends=True)
    lines[number - 1] = re.sub(r"-> output(\.acc)?@", "-> query@", lines[number - 1], count=1)  # over its queries
    done = evenspan("verify", "-", stdin="# a comment moves the lines by one\n" + "".join(lines))
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"standard input:{number + 1}: " in done.stdout


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda text: "",
            '[parse] line 1, column 1: expected "evenspan plan" and a version, found the end of the text; '
            "a plan in text form is what evenspan plan --text writes\n",
        ),
        (lambda text: text[: len(text) // 2], "[parse] line "),
        (lambda text: text.replace("evenspan plan 4", "evenspan plan 7"), "has version 7 of the text form"),
        (lambda text: text.replace("rank 1\n", "rnak 1\n"), 'found "rnak"'),
        (lambda text: "\x00\x01" + text, 'found "\\x00\\x01evenspan"'),
        (lambda text: '{"documents": [5]}', 'found "{\\x22documents\\x22:"; a plan in text form is '),
    ],
)
def test_what_is_no_plan_is_an_error_with_its_place(
    evenspan: Run, text: str, damage: Callable[[str], str], message: str
) -> None:
    done = evenspan("verify", "-", stdin=damage(text))
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("evenspan verify: standard input: [parse] line "), done.stderr
    assert message in done.stderr


def test_bad_arguments(evenspan: Run) -> None:
    for words, message in [
        ([], "FILE is missing; see evenspan verify --help"),
        (["absent.txt"], '"absent.txt" cannot be read: No such file or directory'),
        (["a", "b"], 'the argument "b" is one too many'),
        (["--jsn", "a"], 'there is no option "--jsn"'),
    ]:
        done = evenspan("verify", *words)
        assert done.returncode == 2
        assert done.stderr.startswith("evenspan verify: ")
        assert message in done.stderr
