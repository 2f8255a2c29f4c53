"""Where documents begin in a batch: what each of its keys says, and that all of them say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._values import integers, one_integer

PREFIXES = ("cu_seq_lens", "cu_seq_lens_q", "cu_seq_lens_k")
LONGEST = ("max_length_q", "max_length_k")


def real_tokens(mask: Any, shape: torch.Size) -> torch.Tensor:
    """Return which tokens of the rows are no padding: bool [rows, tokens].

    Args:
        mask: 1 for a token and 0 for padding, [rows, tokens]; None for no padding.
        shape: Of the rows' token ids.

    Raises:
        InvalidArgumentError: The mask has another shape or other values, or padding between a row's tokens.
    """
    if mask is None:
        return torch.ones(shape, dtype=torch.bool)
    given = torch.as_tensor(mask).detach().cpu()
    if given.dim() == 1 and shape[0] == 1:
        given = given.unsqueeze(0)
    if given.shape != shape:
        raise InvalidArgumentError(
            f"[shard] attention_mask must have the shape of input_ids, {list(shape)}, it has {list(given.shape)}; give "
            "one number for each token, other masks than causal inside documents are not computed"
        )
    real = given != 0
    other = given[real & (given != 1)]
    if other.numel() > 0:
        raise InvalidArgumentError(
            f"[shard] attention_mask must be 1 for tokens and 0 for padding, it has {other[0].item()}; number "
            "documents with seq_idx"
        )
    begins = real.clone()
    begins[:, 1:] &= ~real[:, :-1]
    broken = (begins.sum(1) > 1).nonzero()
    if broken.numel() > 0:
        raise InvalidArgumentError(
            f"[shard] attention_mask must have padding at the ends of a row only, row {int(broken[0])} has zeros "
            "between ones; take these tokens out of the row"
        )
    return real


def _starts(lengths: torch.Tensor) -> torch.Tensor:
    """Return where documents of these lengths begin, empty ones left out."""
    return (lengths.cumsum(0) - lengths)[lengths > 0]


def _of_lengths(name: str, lengths: torch.Tensor, num_tokens: int) -> torch.Tensor:
    if (lengths < 0).any() or int(lengths.sum()) != num_tokens:
        raise InvalidArgumentError(
            f"[shard] {name} must divide the {num_tokens} tokens into documents of at least 0, the lengths are "
            f"{lengths[:20].tolist()}; padding that attention_mask marks is no token"
        )
    return _starts(lengths)


def _of_prefix(name: str, value: Any, num_tokens: int) -> torch.Tensor:
    bounds = integers(name, value).flatten()
    if bounds.numel() == 0 or bounds[0] != 0:
        raise InvalidArgumentError(
            f"[shard] {name} must begin with 0, it is {bounds[:20].tolist()}; give the sums of the lengths before"
        )
    return _of_lengths(name, bounds.diff(), num_tokens)


def _of_positions(positions: torch.Tensor) -> torch.Tensor:
    starts = (positions == 0).nonzero()[:, 0]
    count = torch.arange(positions.numel())
    first = torch.zeros_like(positions)
    first[starts] = starts
    wrong = (positions != count - first.cummax(0).values).nonzero() if positions.numel() > 0 else starts[:0]
    if wrong.numel() > 0:
        at = int(wrong[0])
        raise InvalidArgumentError(
            f"[shard] position_ids must count from 0 in every document, token {at} has {int(positions[at])} behind "
            f"{int(positions[at - 1]) if at else 'nothing'}; leave them out and give the lengths as "
            "documents"
        )
    return starts


def _of_indices(indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    begins = torch.ones_like(indices, dtype=torch.bool)
    begins[1:] = indices[1:] != indices[:-1]
    falls = torch.zeros_like(begins)
    falls[1:] = indices[1:] < indices[:-1]
    falls[rows] = False
    begins[rows] = True
    if falls.any():
        at = int(falls.nonzero()[0])
        raise InvalidArgumentError(
            f"[shard] seq_idx must number a row's documents upwards, token {at} has {int(indices[at])} behind "
            f"{int(indices[at - 1])}; keep a document's tokens together"
        )
    return begins.nonzero()[:, 0]


def lengths_of(batch: Mapping[str, Any], real: torch.Tensor, of_tokens: Callable[[str], torch.Tensor]) -> list[int]:
    """Return the documents' lengths, none of them 0.

    Args:
        batch: What the loader gave.
        real: Which tokens are no padding, bool [rows, tokens]; a row begins a document.
        of_tokens: Reads a key that has a number for each token: int64 [tokens that are no padding].

    Raises:
        InvalidArgumentError: A key breaks its rule, or two of them disagree.
    """
    num_tokens = int(real.sum())
    rows = _starts(real.sum(1))
    found: dict[str, torch.Tensor] = {}
    if batch.get("documents") is not None:
        found["documents"] = _of_lengths("documents", integers("documents", batch["documents"]).flatten(), num_tokens)
    for name in PREFIXES:
        if batch.get(name) is not None:
            found[name] = _of_prefix(name, batch[name], num_tokens)
    if batch.get("seq_idx") is not None:
        found["seq_idx"] = _of_indices(of_tokens("seq_idx"), rows)
    if batch.get("position_ids") is not None:
        found["position_ids"] = _of_positions(of_tokens("position_ids"))

    def lengths(starts: torch.Tensor) -> list[int]:
        return [int(length) for length in torch.cat((starts, torch.tensor([num_tokens]))).diff().tolist()]

    first, starts = next(iter(found.items()), ("the rows", rows))
    for name, other in found.items():
        if not torch.equal(starts, other):
            raise InvalidArgumentError(
                f"[shard] {first} and {name} must name the same documents, their lengths are {lengths(starts)[:20]} "
                f"and {lengths(other)[:20]}; leave out what is wrong"
            )
    if not torch.isin(rows, starts).all():
        raise InvalidArgumentError(
            f"[shard] a document must lie in one row, the rows have {lengths(rows)[:20]} tokens and the documents of "
            f"{first} {lengths(starts)[:20]}; put rows that belong together into one"
        )
    result = lengths(starts)
    for name in LONGEST:
        if batch.get(name) is not None and one_integer(name, batch[name]) < max(result, default=0):
            raise InvalidArgumentError(
                f"[shard] {name} must be at least the longest document's {max(result)} tokens, it is "
                f"{one_integer(name, batch[name])}; leave it out or give the right documents"
            )
    return result
