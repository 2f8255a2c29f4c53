"""Runs `python -m evenspan`."""

from __future__ import annotations

import subprocess
import sys


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evenspan", *map(str, words)], capture_output=True, text=True, timeout=300
    )
