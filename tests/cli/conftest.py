"""Runs the program `evenspan`."""

import re
import subprocess
from pathlib import Path

import pytest
from program import BINARY, Run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-examples", action="store_true", help="write the outputs in docs/ anew (test_docs.py)")


# What a command says of its progress where the machine is so busy that it takes more than two seconds.
PROGRESS = re.compile(r"^evenspan \w+: (\d+ %, .* left|.* so far)\n", re.M)


@pytest.fixture
def evenspan(tmp_path: Path) -> Run:
    """A function that runs evenspan with the given words in an empty folder; `stdin` is text or bytes.

    Lines of progress are left out of its standard error.
    """

    def run(*words: object, stdin: str | bytes = b"", binary: Path = BINARY) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [binary, *map(str, words)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=tmp_path,
            timeout=120,
        )
        said = PROGRESS.sub("", done.stderr.decode())
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), said)

    return run
