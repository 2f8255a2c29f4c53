"""Numbers that a loader gives, as tensors on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from evenspan._errors import InvalidArgumentError


def _holds_bool(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return isinstance(value, bool)
    if isinstance(value[0], list | tuple):
        return any(map(_holds_bool, value))
    return bool in set(map(type, value))


def integers(name: str, value: Any) -> torch.Tensor:
    """Return whole numbers as int64 on the CPU, in the shape that they came in.

    Args:
        name: The batch's key, for the error.
        value: A tensor, an array or nested lists, of an integer type.

    Raises:
        InvalidArgumentError: It holds fractions, truth values or something else, or rows of different lengths.
    """
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(
            f"[shard] {name} must be whole numbers, in rows of one length, it is a {type(value).__name__} that "
            f"cannot be a tensor: {error}; give a tensor of an integer type"
        ) from error
    if tensor.numel() == 0:
        return tensor.to(torch.int64)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool or _holds_bool(value):
        kind = torch.bool if _holds_bool(value) else tensor.dtype
        raise InvalidArgumentError(
            f"[shard] {name} must be whole numbers, it holds {kind} ({tensor.flatten()[0].item()}, ...); give a tensor "
            "of an integer type"
        )
    return tensor.to(torch.int64)


def one_integer(name: str, value: Any) -> int:
    """Return one whole number, given as such or as a tensor of one element."""
    number = integers(name, value)
    if number.numel() != 1:
        raise InvalidArgumentError(f"[shard] {name} must be one number, it is {list(number.shape)}; give one")
    return int(number)


def weights(name: str, value: Any) -> torch.Tensor:
    """Return weights as float64 on the CPU, in the shape that they came in.

    Raises:
        InvalidArgumentError: They are no numbers, negative or not finite.
    """
    try:
        tensor = torch.as_tensor(value).detach().cpu().to(torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(f"[shard] {name} must be numbers, in rows of one length: {error}") from error
    wrong = tensor[~(torch.isfinite(tensor) & (tensor >= 0))]
    if wrong.numel() > 0:
        raise InvalidArgumentError(
            f"[shard] {name} must be finite and at least 0, it has {wrong[0].item()}; give 0 for what must not count"
        )
    return tensor


def document_ids(documents: Any) -> tuple[torch.Tensor, list[int]]:
    """Return the tokens of a list of documents, int64 [tokens], and the documents' lengths.

    Raises:
        InvalidArgumentError: A document is no sequence of whole numbers.
    """
    if all(isinstance(document, list | tuple) for document in documents):
        flat = [token for document in documents for token in document]
        ids = integers("a document", flat)
        if ids.dim() != 1:
            raise InvalidArgumentError(
                f"[shard] a document must be a list of token ids, its tokens are {list(ids.shape[1:])}; give a list of "
                "documents, each a list of numbers"
            )
        return ids, [len(document) for document in documents]
    if all(isinstance(document, torch.Tensor) and document.dim() == 1 for document in documents):
        kinds = {document.dtype for document in documents if document.numel() > 0}
        if len(kinds) == 1:  # the usual one, without a call for each
            return integers("a document", torch.cat(documents)), [document.numel() for document in documents]
    read = [integers("a document", document) for document in documents]
    for i, document in enumerate(read):
        if document.dim() != 1:
            raise InvalidArgumentError(
                f"[shard] a document must be a list of token ids, document {i} is {list(document.shape)}; give a "
                "list of documents, each a list of numbers"
            )
    return torch.cat(read), [document.numel() for document in read]
