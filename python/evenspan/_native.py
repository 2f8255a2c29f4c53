"""The program `evenspan` that is installed beside the package: the commands that need no torch."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from evenspan._errors import Error

COMMANDS = ("plan", "verify", "simulate", "explain", "batch", "strategies", "completion")


def _folders() -> Iterator[Path]:
    """Yield where the program may be: a build's folder, if this is a build's package; the interpreter's scripts."""
    yield Path(__file__).absolute().parents[2] / "bin"
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sys.executable).parent
    yield Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))


def program() -> Path:
    """Return the path of the program.

    Raises:
        Error: It was not built; the text says where it was looked for.
    """
    folders = list(dict.fromkeys(_folders()))
    for folder in folders:
        if os.access(folder / "evenspan", os.X_OK) and (folder / "evenspan").is_file():
            return folder / "evenspan"
    raise Error(
        f"[start] the program evenspan is in none of {', '.join(map(str, folders))}; install evenspan where CLI11, "
        "nlohmann-json and zlib are (Debian: libcli11-dev nlohmann-json3-dev zlib1g-dev), which it is built with"
    )


def start(arguments: Sequence[str]) -> None:
    """Become the program with these arguments; does not return.

    Raises:
        Error: It was not built, or does not start.
    """
    path = program()
    sys.stdout.flush()
    try:
        os.execv(path, [str(path), *arguments])
    except OSError as error:
        raise Error(f"[start] {path} does not start: {error.strerror}; install evenspan again") from error
