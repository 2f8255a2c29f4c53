"""Who holds which token: the layouts that the peers ask for, as plain lists of token numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

PADDING = -1


def ceil_to(value: int, multiple: int) -> int:
    """Return the least multiple that is not below the value."""
    return -(-value // multiple) * multiple


def cu_seqlens(lengths: Sequence[int]) -> torch.Tensor:
    """Return where documents of these lengths begin, and where the last one ends: int32 [documents + 1]."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


@dataclass(frozen=True)
class Layout:
    """The rows of every rank: numbers of tokens in the packed batch, PADDING for none. Every token has one row."""

    rows: list[torch.Tensor]  # [rank] int64 [rows]
    lengths: list[int]  # of the documents that the layout speaks of, padding included: what cu_seqlens are made of

    @property
    def num_rows(self) -> int:
        """Rows on all ranks, padding included."""
        return sum(rows.numel() for rows in self.rows)

    def local(self, whole: torch.Tensor, rank: int) -> torch.Tensor:
        """Take a rank's rows of [tokens, ...]; padding is 0."""
        rows = self.rows[rank]
        taken = whole[rows.clamp(min=0)]
        taken[rows == PADDING] = 0
        return taken


def _pieces(tokens: torch.Tensor, count: int) -> list[torch.Tensor]:
    return list(tokens.chunk(count)) if tokens.numel() else [tokens] * count


def padded(num_tokens: int, multiple: int) -> torch.Tensor:
    """Return the numbers of all tokens, then PADDING up to a multiple."""
    tokens = torch.arange(ceil_to(num_tokens, multiple))
    tokens[num_tokens:] = PADDING
    return tokens


def _lengths(lengths: Sequence[int], num_padding: int) -> list[int]:
    return [*lengths, num_padding] if num_padding else list(lengths)


def contiguous(lengths: Sequence[int], ranks: int) -> Layout:
    """Equal pieces in order. What is missing to a multiple of the ranks is a document of padding at the end."""
    tokens = padded(sum(lengths), ranks)
    return Layout(_pieces(tokens, ranks), _lengths(lengths, tokens.numel() - sum(lengths)))


def zigzag(lengths: Sequence[int], ranks: int, parts: int = 1) -> Layout:
    """Pieces r and 2 ranks - 1 - r of 2 ranks pieces, the two together cut into `parts` that are ranks of their own.

    Rank r * parts + p has part p of pair r.
    """
    tokens = padded(sum(lengths), 2 * ranks * parts)
    pieces = _pieces(tokens, 2 * ranks)
    pairs = [torch.cat([pieces[r], pieces[2 * ranks - 1 - r]]) for r in range(ranks)]
    rows = [part for pair in pairs for part in _pieces(pair, parts)]
    return Layout(rows, _lengths(lengths, tokens.numel() - sum(lengths)))


def stripe(lengths: Sequence[int], ranks: int) -> Layout:
    """Token t on rank t modulo ranks."""
    tokens = padded(sum(lengths), ranks)
    return Layout([tokens[r::ranks] for r in range(ranks)], _lengths(lengths, tokens.numel() - sum(lengths)))


def per_document(lengths: Sequence[int], ranks: int, pieces: int) -> Layout:
    """Cut every document into `pieces` (ranks, or twice as many for zigzag), each padded at its end to a multiple."""
    rows: list[list[torch.Tensor]] = [[] for _ in range(ranks)]
    start = 0
    for length in lengths:
        tokens = padded(length, pieces)
        tokens[:length] += start
        start += length
        cut = _pieces(tokens, pieces)
        for r in range(ranks):
            rows[r].append(cut[r])
            if pieces == 2 * ranks:
                rows[r].append(cut[2 * ranks - 1 - r])
    return Layout([torch.cat(own) for own in rows], [ceil_to(length, pieces) for length in lengths])
