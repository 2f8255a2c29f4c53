"""The commands in the documentation print what it says they print."""

import os
import re
import subprocess

import pytest
from conftest import BINARY, ROOT

# A shell block, a few words, and the block with its output.
EXAMPLE = re.compile(r"```sh\n(.*?)```\n[^`]*(?:`[^`\n]*`[^`]*)*```text\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(command, output, id=f"{path.stem}-{i}")
    for path in [ROOT / "docs" / "plan_format.md"]
    for i, (command, output) in enumerate(EXAMPLE.findall(path.read_text()))
]


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize(("command", "output"), EXAMPLES)
def test_example(command: str, output: str) -> None:
    environment = {**os.environ, "PATH": f"{BINARY.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", command], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output
