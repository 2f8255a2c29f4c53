"""Exact attention of whole documents by matrix products, and how far a system may be from it.

A result's error is the larger of max |x - exact| / max |exact| and |x - exact| / |exact| in the Frobenius norm, of the
output and of each gradient. With u the unit roundoff of the type:

- f32, u = 2^-24: a gradient is a sum over up to L rows of products of sums over head_dim; independent roundings of such
  a sum grow like sqrt(L) u, and partial results over ranks add a few more. Allowed are 16 sqrt(L) u, 9e-5 for 8,192.
- bf16, u = 2^-9: the kernel accumulates in f32, and rounds weights, scores' gradients and results to bf16 once each;
  partial results are rounded again on each of the few ranks. Allowed are 16 u, 3e-2.

A leak between documents, a lost token or a gradient that passed through a shorter type is an error of 0.1 to 1 in at
least one of the two norms for f32 and bf16 alike, or far above 16 sqrt(L) u.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from batches import Batch

NAMES = ("output", "dq", "dk", "dv")
BLOCK_ELEMENTS = 1 << 24  # scores that are held at once


def tolerance(batch: Batch) -> float:
    """Return the largest error of a right result."""
    if batch.dtype == "bf16":
        return 16 * 2.0**-9
    return 16 * math.sqrt(max(*batch.lengths, batch.shape.head_dim)) * 2.0**-24


def _block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, first: int) -> list[torch.Tensor]:
    """Return out, dq and the parts of dk and dv of some queries of documents; [n, kv_heads, group, rows, dim]."""
    scale = q.shape[-1] ** -0.5
    scores = q @ k.transpose(-1, -2) * scale
    rows = torch.arange(first, first + q.shape[-2]).unsqueeze(-1)
    scores.masked_fill_(torch.arange(k.shape[-2]) > rows, -math.inf)
    weights = scores.softmax(-1)
    out = weights @ v
    slope = g @ v.transpose(-1, -2) - (g * out).sum(-1, keepdim=True)
    ds = slope.mul_(weights).mul_(scale)
    dk = (ds.transpose(-1, -2) @ q).sum(2, keepdim=True)
    dv = (weights.transpose(-1, -2) @ g).sum(2, keepdim=True)
    return [out, ds @ k, dk, dv]


def exact(lengths: Sequence[int], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return output, dq, dk and dv of causal attention within each document, in float64 for float32 inputs.

    Args:
        lengths: Tokens of the documents.
        inputs: Query, key, value and the output's gradient, [tokens, heads, dim]; bf16 ones are taken as float32.
    """
    kind = torch.float32 if inputs[0].dtype == torch.bfloat16 else torch.float64
    kv_heads = inputs[1].shape[1]
    q, k, v, g = (x.to(kind).unflatten(1, (kv_heads, -1)) for x in inputs)  # [tokens, kv_heads, group, dim]
    results = [torch.zeros_like(q), torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    heads = inputs[0].shape[1]
    for length in sorted(set(lengths)):
        own = torch.tensor([int(starts[i]) for i, n in enumerate(lengths) if n == length])
        for some in own.split(max(1, BLOCK_ELEMENTS // (heads * length * length))):
            at = some.unsqueeze(-1) + torch.arange(length)  # [n, length]
            whole = [x[at].movedim(1, 3) for x in (q, k, v, g)]  # [n, kv_heads, group, length, dim]
            step = max(1, BLOCK_ELEMENTS // (heads * length * len(some)))
            for first in range(0, length, step):
                end = min(first + step, length)
                part = [whole[i][..., :end, :] for i in range(4)]
                found = _block(part[0][..., first:, :], part[1], part[2], part[3][..., first:, :], first)
                for i in range(2):
                    results[i][at[:, first:end]] = found[i].movedim(3, 1)
                for i in range(2, 4):
                    results[i][at[:, :end]] += found[i].movedim(3, 1)
    return [x.flatten(1, 2) for x in results]


def error_sums(local: torch.Tensor, whole: torch.Tensor, rows: torch.Tensor) -> tuple[float, float]:
    """Return max |x - exact| and the sum of its squares over the rows that hold a token."""
    held = rows >= 0
    difference = local[held].double() - whole[rows[held]].double()
    if difference.numel() == 0:
        return 0.0, 0.0
    return float(difference.abs().max()), float(difference.square().sum())
