"""The commands in the documentation print what it says they print; `pytest tests/cli --update-examples` rewrites it."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import BINARY, ROOT

# A shell block and the block with its output, with words but no other block between them.
EXAMPLE = re.compile(
    r"```sh\n(?P<command>(?:(?!```).)*)```\n(?:(?!```).)*```text\n(?P<output>(?:(?!```).)*)```", re.DOTALL
)
FILES = [ROOT / "docs" / "plan_format.md", ROOT / "docs" / "simulator.md"]


def output_of(command: str) -> str:
    environment = {**os.environ, "PATH": f"{BINARY.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", command], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    examples = list(EXAMPLE.finditer(text))
    assert examples
    if request.config.getoption("--update-examples"):
        for example in reversed(examples):
            text = text[: example.start("output")] + output_of(example["command"]) + text[example.end("output") :]
        path.write_text(text)
    for example in EXAMPLE.finditer(text):
        assert example["output"] == output_of(example["command"])
