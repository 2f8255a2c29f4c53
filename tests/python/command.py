"""Runs `python -m evenspan`."""

from __future__ import annotations

import subprocess
import sys


def run(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evenspan", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)
