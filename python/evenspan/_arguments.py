"""Arguments of Python callers: what is not of the wanted kind is refused by name, and never read as something else."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Set
from typing import Any

from evenspan._errors import InvalidArgumentError

SHOWN_CHARACTERS = 60


def whole_number(operation: str, name: str, value: Any, bits: int = 32) -> int:
    """Return an integer: of Python, NumPy or torch, but no bool, float or text.

    Raises:
        InvalidArgumentError: It is none, or does not fit into `bits`.
    """
    number = _index(value, bits)
    if number is None:
        raise InvalidArgumentError(
            f"[{operation}] {name} must be a whole number of at most {bits} bits, it is {described(value)}"
        )
    return number


def whole_numbers(operation: str, name: str, values: Any) -> list[int]:
    """Return integers as of `whole_number`, of 64 bits, from a list, a tuple, another iterable, an array or a tensor.

    Raises:
        InvalidArgumentError: It is a text, a mapping, a set or a single value, or an item is no integer.
    """
    wanted = f"[{operation}] {name} must be a list of whole numbers"
    if isinstance(values, str | bytes | bytearray | Mapping | Set) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{wanted}, it is {described(values)}")
    try:
        items = list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError:  # a tensor or array of one value
        raise InvalidArgumentError(f"{wanted}, it is {described(values)}") from None
    numbers = []
    for i, item in enumerate(items):
        number = _index(item, 64)
        if number is None:
            raise InvalidArgumentError(f"{wanted} of at most 64 bits, item {i} is {described(item)}")
        numbers.append(number)
    return numbers


def described(value: Any) -> str:
    """Return the value and its type, for an error."""
    text = repr(value)
    if len(text) > SHOWN_CHARACTERS:
        text = text[: SHOWN_CHARACTERS - 3] + "..."
    return f"{text} ({type(value).__name__})"


def _index(value: Any, bits: int) -> int | None:
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if abs(number) < 2 ** (bits - 1) else None
