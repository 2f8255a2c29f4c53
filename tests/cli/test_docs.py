"""The shell commands in the documentation run, and print what it says they print.

Every block marked `sh` is run, in the order of the file, in a folder of the file's own in which build/ is this build
and bench/data/ is there, with `evenspan` in the path. A block marked `text` after it, with words but no other block
between them, is its output; `pytest tests/cli --update-examples` rewrites it. `<!-- not run by the tests: REASON -->`
above a block exempts it.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from program import BINARY, ROOT

EXEMPT = r"(?P<exempt><!-- not run by the tests: [^\n]+ -->\n)?"
BLOCK = re.compile(EXEMPT + r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED_COMMAND = re.compile(r"\n\n    (\$|make|evenspan|build/|scripts/|python|torchrun|import) ?.*")
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"sh", "text", "python"}  # tests/processes/test_docs_python.py runs the last


def output_of(command: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{BINARY.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_commands(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "build").symlink_to(BINARY.parents[1])
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "data").symlink_to(ROOT / "bench" / "data")
    text = path.read_text()
    outputs = []  # (where the file has it, what the command before it printed)
    printed = None
    for block in BLOCK.finditer(text):
        assert block["kind"] in KINDS, f"mark the block as one of {sorted(KINDS)}: {block[0]}"
        if block["kind"] == "text" and printed is not None:
            outputs.append((block.span("body"), printed))
        printed = output_of(block["body"], tmp_path) if block["kind"] == "sh" and not block["exempt"] else None
    if request.config.getoption("--update-examples"):
        for (begin, end), printed in reversed(outputs):
            text = text[:begin] + printed + text[end:]
        path.write_text(text)
    else:
        for (begin, end), printed in outputs:
            assert text[begin:end] == printed


def test_there_are_commands() -> None:
    found = [block for path in FILES for block in BLOCK.finditer(path.read_text())]
    assert sum(block["kind"] == "sh" and not block["exempt"] for block in found) >= 4
    assert sum(path.read_text().count("\n```") for path in FILES) == 2 * len(found)
    hidden = [match[0] for path in FILES for match in INDENTED_COMMAND.finditer(path.read_text())]
    assert not hidden, "commands stand in fenced blocks, which are run"
