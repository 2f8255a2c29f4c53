"""Finds the operators of ops.cc: the library that EVENSPAN_PROCESS_TEST_OPS names, by default the one in build/lib."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(os.environ.get("EVENSPAN_PROCESS_TEST_OPS", ROOT / "build" / "lib" / "libevenspan_process_test_ops.so"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-families", action="store_true", help="write docs/families.md anew (test_families.py)")


@pytest.fixture
def library() -> str:
    if not LIBRARY.exists():
        pytest.fail(f"the process tests load {LIBRARY}, which does not exist; run `make build`")
    return str(LIBRARY)
