"""What a system is to the harness."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Protocol

import torch
from batches import Batch
from layouts import Layout

# Differentiable attention of local query, key and value, [rows, heads, head_dim]: what a step runs, both ways.
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class System(Protocol):
    """A way to compute attention over ranks. The default process group holds the ranks."""

    name: str
    version: str

    def unsupported(self, batch: Batch) -> str | None:
        """Return why the system cannot run the batch, None where it can try."""
        ...

    def layout(self, batch: Batch) -> Layout:
        """Return which rows the ranks hold."""
        ...

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Do what a user does once for a batch, on every rank; not part of a step's time."""
        ...

    def pairs(self, batch: Batch) -> list[int] | None:
        """Return the pairs that each rank computes, None to count those of the stand-in's kernel."""
        ...


class Peer:
    """What most peers have in common: no rule but that of the subclass, and a kernel that counts."""

    name = ""
    version = ""

    def unsupported(self, batch: Batch) -> str | None:
        """Refuse nothing."""
        return None

    def pairs(self, batch: Batch) -> list[int] | None:
        """Let the stand-in count."""
        return None


def patched(name: str, replacements: Mapping[str, str]) -> ModuleType:
    """Import a module with parts of its source replaced: for defects inside functions, which no subclass can reach.

    Raises:
        ImportError: The source lacks one of the parts, so it is another version than the patch is for.
    """
    module = importlib.import_module(name)
    source = inspect.getsource(module)
    for old, new in replacements.items():
        if old not in source:
            raise ImportError(f"[patched] {name} must contain {old!r}, it does not; check its version")
        source = source.replace(old, new)
    exec(compile(source, str(module.__file__), "exec"), module.__dict__)
    return module
