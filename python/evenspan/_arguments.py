"""Arguments of Python callers: what is not of the wanted kind is refused by name, and never read as something else.

What the bindings get has gone through here, so that their own TypeErrors are not met.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from evenspan._errors import InvalidArgumentError

SHOWN_CHARACTERS = 60


def whole_number(operation: str, name: str, value: Any, bits: int = 32) -> int:
    """Return an integer: of Python, NumPy or torch, but no bool, float or text.

    Raises:
        InvalidArgumentError: It is none, or does not fit into `bits`.
    """
    number = integer_or_none(value, bits)
    if number is None:
        raise InvalidArgumentError(
            f"[{operation}] {name} must be a whole number of at most {bits} bits, it is {described(value)}; give one"
        )
    return number


def whole_numbers(operation: str, name: str, values: Any) -> list[int]:
    """Return integers as of `whole_number`, of 64 bits, from a list, a tuple, another iterable, an array or a tensor.

    Raises:
        InvalidArgumentError: It is a text, a mapping, a set or a single value, or an item is no integer.
    """
    wanted = f"[{operation}] {name} must be a list of whole numbers"
    if isinstance(values, str | bytes | bytearray | Mapping | Set) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{wanted}, it is {described(values)}; give one")
    try:
        items = list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError:  # a tensor or array of one value
        raise InvalidArgumentError(f"{wanted}, it is {described(values)}; give one") from None
    numbers = []
    for i, item in enumerate(items):
        number = integer_or_none(item, 64)
        if number is None:
            raise InvalidArgumentError(
                f"{wanted} of at most 64 bits, item {i} is {described(item)}; give whole numbers"
            )
        numbers.append(number)
    return numbers


def real_number(operation: str, name: str, value: Any) -> float:
    """Return a number of Python, NumPy or torch, no bool and no text.

    Raises:
        InvalidArgumentError: It is none.
    """
    number = None
    if not _is_bool(value) and hasattr(value, "__float__"):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # an array, 10**400
            number = None
    if number is None:
        raise InvalidArgumentError(f"[{operation}] {name} must be a number, it is {described(value)}; give one")
    return number


def flag(operation: str, name: str, value: Any) -> bool:
    """Return True or False, of Python or NumPy.

    Raises:
        InvalidArgumentError: It is something else.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidArgumentError(f"[{operation}] {name} must be True or False, it is {described(value)}; give one")
    return bool(value)


def text(operation: str, name: str, value: Any) -> str:
    """Return a text.

    Raises:
        InvalidArgumentError: It is something else.
    """
    if not isinstance(value, str):
        raise InvalidArgumentError(f"[{operation}] {name} must be a text, it is {described(value)}; give a name")
    return value


def optional_path(operation: str, name: str, value: Any) -> str | None:
    """Return a path or a name, None for None.

    Raises:
        InvalidArgumentError: It is something else, bytes too.
    """
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise InvalidArgumentError(
            f"[{operation}] {name} must be a path, it is {described(value)}; give a str or a pathlib.Path, or leave it "
            "out"
        )
    return path


def one_mask_or_more(operation: str, value: Any) -> str | list[str]:
    """Return the mask of all documents, or one for each.

    Raises:
        InvalidArgumentError: It is no text and no sequence of them.
    """
    if isinstance(value, str):
        return value
    masks = list(value) if isinstance(value, Sequence) else None
    if masks is None or not all(isinstance(mask, str) for mask in masks):
        raise InvalidArgumentError(
            f"[{operation}] mask must be a text, or a list of one for each document, it is {described(value)}; give "
            'such as "causal"'
        )
    return masks


def described(value: Any) -> str:
    """Return the value and its type, for an error."""
    text = repr(value)
    if len(text) > SHOWN_CHARACTERS:
        text = text[: SHOWN_CHARACTERS - 3] + "..."
    return f"{text} ({type(value).__name__})"


def integer_or_none(value: Any, bits: int) -> int | None:
    if _is_bool(value):
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if abs(number) < 2 ** (bits - 1) else None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
