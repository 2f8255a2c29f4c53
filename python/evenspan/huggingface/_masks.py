"""What a mask of transformers lets a token see, found by asking the function that makes it."""

from __future__ import annotations

from collections.abc import Callable

import torch

CAUSAL = 0  # of a mask's window: a token sees its whole document up to itself
_NEAR = 48  # every pair of so many first tokens is asked for
_FAR = 1 << 20  # a token so far on that every window ends before the document does


def window_of(mask: Callable[..., torch.Tensor]) -> int | None:
    """Return CAUSAL, or W for a mask of which a token sees the W last tokens, itself among them; None for any other.

    Args:
        mask: transformers' mask function of (row of the batch, head, query, key), each an int64 tensor of one shape;
            true where the query sees the key.
    """
    try:
        window = _last_tokens_seen(mask)
        queries, keys = _pairs(window)
        found = _ask(mask, queries, keys)
    except Exception:  # a mask that holds tensors of the batch has no entry so far on
        return None
    return window if torch.equal(found, _allowed(queries, keys, window)) else None


def _allowed(queries: torch.Tensor, keys: torch.Tensor, window: int) -> torch.Tensor:
    causal = keys <= queries
    return causal if window == CAUSAL else causal & (queries - keys < window)


def _ask(mask: Callable[..., torch.Tensor], queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    nothing = torch.zeros_like(queries)
    return torch.as_tensor(mask(nothing, nothing, queries, keys)).cpu().bool().expand(queries.shape)


def _last_tokens_seen(mask: Callable[..., torch.Tensor]) -> int:
    """Bisect for the first key that the far token sees."""
    unseen, seen = -1, _FAR
    while seen - unseen > 1:
        middle = (seen + unseen) // 2
        if _ask(mask, torch.tensor([_FAR]), torch.tensor([middle])).item():
            seen = middle
        else:
            unseen = middle
    return CAUSAL if seen == 0 else _FAR - seen + 1


def _pairs(window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pairs of queries and keys: all near ones, and far on those around every border that there may be."""
    near = torch.arange(_NEAR)
    far = {base + step for base in (window, 2 * window, _FAR // 3, _FAR) for step in (-1, 0, 1)}
    pairs = set()
    for query in sorted(far):
        borders = {0, query // 2, query - window, query}
        pairs |= {(query, border + step) for border in borders for step in (-1, 0, 1)}
    rest = torch.tensor(sorted((q, k) for q, k in pairs if q >= 0 and k >= 0))
    return torch.cat((near.repeat_interleave(_NEAR), rest[:, 0])), torch.cat((near.repeat(_NEAR), rest[:, 1]))
