"""The cross entropy of a rank's tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._batches import NO_LABEL


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the sum of weight * cross entropy (natural logarithm) over the tokens that have a label.

    Args:
        logits: [1, n, vocabulary]; the log-softmax is in float32, in float64 for float64.
        labels: int64 [1, n], NO_LABEL for none.
        weights: float64 [1, n], None for 1 each.

    Raises:
        InvalidArgumentError: The logits have other tokens.
    """
    if logits.shape[:-1] != labels.shape:
        raise InvalidArgumentError(
            f"[loss] logits must be {[*labels.shape, 'vocabulary']} as their batch, they are {list(logits.shape)}; "
            "give what model(**batch) returned"
        )
    if logits.dtype != torch.float64:
        logits = logits.float()
    rows, targets = logits.flatten(0, -2), labels.flatten().to(logits.device)
    if weights is None:
        return F.cross_entropy(rows, targets, ignore_index=NO_LABEL, reduction="sum")
    each = F.cross_entropy(rows, targets, ignore_index=NO_LABEL, reduction="none")
    return (each * weights.flatten().to(device=each.device, dtype=each.dtype)).sum()
