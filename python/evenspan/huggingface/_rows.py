"""Rows that were computed twice, in other orders: of every module of a model, compared."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch

from evenspan.huggingface._models import refusal

_FEATURES = 256  # of a row that are kept


class Rows:
    """What modules gave for each row, kept from one forward pass and compared with another.

    A module's own output shows what it does by as much as the output is, however small a part of the model's sum that
    is: new models have layers that hardly count.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Name the modules."""
        self._names = {module: name or "the model" for name, module in model.named_modules()}
        self._kept: dict[torch.nn.Module, list[list[torch.Tensor]]] = defaultdict(list)

    @contextlib.contextmanager
    def kept(self, documents: int, length: int) -> Iterator[None]:
        """Keep what modules give for [documents, length] tokens."""

        def hook(module: torch.nn.Module, _: Any, output: Any) -> None:
            self._kept[module].append(_features(output, documents, length))

        with _on_every_module(hook):
            yield

    @contextlib.contextmanager
    def compared(self, rows: torch.Tensor, depth: Callable[[], int]) -> Iterator[None]:
        """Compare what modules give for one sequence of these rows with what was kept; `depth` layers were before.

        Raises:
            UnsupportedError: They differ by more than rounding.
        """
        calls: dict[torch.nn.Module, int] = defaultdict(int)

        def hook(module: torch.nn.Module, _: Any, output: Any) -> None:
            kept, call = self._kept[module], calls[module]
            calls[module] += 1
            found = _features(output, 1, rows.numel())
            if call < len(kept) and len(kept[call]) == len(found):
                for a, b in zip(kept[call], found, strict=True):
                    if a.shape == b.shape:
                        compare(f"outputs of {self._names.get(module, type(module).__name__)}", a[rows], b, depth())

        with _on_every_module(hook):
            yield


@contextlib.contextmanager
def _on_every_module(hook: Any) -> Iterator[None]:
    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _features(output: Any, documents: int, length: int) -> list[torch.Tensor]:
    """Return [rows, features] of each tensor [documents, length, ...] of a module's output.

    Tensors of other shapes are of experts, which sort their rows.
    """
    found = []
    for tensor in output if isinstance(output, tuple | list) else (output,):
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.dim() < 3:
            continue
        if tensor.shape[:2] == (documents, length):
            found.append(features(tensor.flatten(0, 1)))
    return found


def features(rows: torch.Tensor) -> torch.Tensor:
    """Return some of the values of each row, [rows, features]."""
    flat = rows.detach().flatten(1)
    return flat[:, :: -(-flat.size(1) // _FEATURES)].clone()


def epsilon(tensor: torch.Tensor) -> float:
    """Return the step of the type that the tensor was computed in; norms and angles are float32 at best."""
    step = max(torch.finfo(tensor.dtype).eps, torch.finfo(torch.float32).eps)
    tf32 = tensor.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
    return max(step, 2.0**-10) if tf32 else step


def close(expected: torch.Tensor, found: torch.Tensor, depth: int) -> bool:
    """Whether rows [rows, ...] differ by rounding alone."""
    error, bound = _error(expected, found, depth)
    return error <= bound  # false for no number


def compare(what: str, expected: torch.Tensor, found: torch.Tensor, depth: int) -> None:
    """Refuse rows [rows, ...] that differ by more than rounding."""
    error, bound = _error(expected, found, depth)
    if not error <= bound:
        raise refusal(
            "everything but attention must depend on a token and its position alone, as position_ids has it",
            f"{what} differ by {error:.2g} of their size where the rows stand in another order",
            "use another model",
        )


def _error(expected: torch.Tensor, found: torch.Tensor, depth: int) -> tuple[float, float]:
    """Return by how much rows differ relative to their norms, and how much rounding may do.

    Both are the same sums in another order: they differ by some steps of the type, and by the root of the number of
    layers before them more. A model that is wrong is so by as much as the values are, and for most rows, since no row
    stands where it stood: of 16 bits, where a router may choose another expert for single rows, half of them count.
    """
    step = epsilon(found)
    a, b = expected.flatten(1).float(), found.flatten(1).float()
    errors = (a - b).norm(dim=1) / a.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    half = step > torch.finfo(torch.float32).eps
    error = (errors.median() if half else errors.max()).item()
    return error, min((16 if half else 256) * step * math.sqrt(1 + depth), 0.25)
