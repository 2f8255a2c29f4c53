"""What becomes of a tiny model of each decoder family when it is attached: the rows of docs/families.md."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

import evenspan
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tiny_models import FAMILIES, NO_FLOAT64, WINDOW, tiny_model
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

# Longer and shorter than the windows, and the longest is cut between the ranks.
DOCUMENTS = [[(7 * i + 11 * length) % 60 + 4 for i in range(length)] for length in (17, 1, 6, 2)]

# Families that no input of one row of token ids has, alone or attached.
OTHER_INPUTS = {
    "gemma4_assistant": "takes the keys and values of another model",
    "gemma4_unified_assistant": "takes the keys and values of another model",
    "musicgen": "takes a row for each of four codebooks",
    "musicgen_melody": "takes a row for each of four codebooks",
}


def alone(model: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """Mean loss and gradients of the documents one by one, in torch's attention; the ranks share them out."""
    rank, size = dist.get_rank(), dist.get_world_size()
    labels = sum(len(document) - 1 for document in DOCUMENTS)
    loss = torch.zeros((), dtype=torch.float64)
    for document in DOCUMENTS[rank::size]:
        ids = torch.tensor([document])
        logits = model(input_ids=ids, use_cache=False).logits[0]
        loss = loss + F.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum").double() / labels
    loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    gradients: list[torch.Tensor | None] = []
    for p in model.parameters():
        gradient = torch.zeros_like(p) if p.grad is None else p.grad
        dist.all_reduce(gradient)
        gradients.append(gradient)
        p.grad = None
    return total, gradients


def row_of(family: str) -> tuple[str, str]:
    """The model's class, and "equal" or why attach refuses it; anything else is an AssertionError."""
    model: Any = tiny_model(family)
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    try:
        context = evenspan.attach(model, dist.group.WORLD, strategy="sequence_aware")
    except evenspan.UnsupportedError as error:
        text = str(error)
        assert text.startswith("[attach] ") and text.count("; ") >= 2, text
        assert " raised " not in text or family in OTHER_INPUTS, text
        if family not in OTHER_INPUTS:  # it is the model that is refused, not this test's idea of it
            model(input_ids=torch.tensor([[5, 9, 11]]), use_cache=False)
        reason = OTHER_INPUTS.get(family) or re.sub(r" by \S+ of their size", "", text.removeprefix("[attach] "))
        return name, f"refused: {reason}"
    context.detach()
    expected_loss, expected = alone(model)
    context = evenspan.attach(model, dist.group.WORLD, strategy="sequence_aware")
    (batch,) = context.shard([DOCUMENTS])
    assert context.plan is not None and all(0 < n < sum(map(len, DOCUMENTS)) for n in context.plan.tokens)
    context.loss(model(**batch)).backward()
    context.reduce_gradients()
    # transformers rounds norms and angles to float32 where all else is float64; float32 rounds all of it.
    bound = 1e-3 if family in NO_FLOAT64 else 1e-5
    assert abs(context.mean_loss() - float(expected_loss)) < bound * float(expected_loss), "another loss"
    for (name_of, p), gradient in zip(model.named_parameters(), expected, strict=True):
        found = torch.zeros_like(p) if p.grad is None else p.grad
        difference = (found - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert difference < bound, f"the gradient of {name_of} differs by {difference:.2g}"
    windows = sorted(set(context._plans._shape.windows.values()))
    text = {(0,): "equal", (WINDOW,): "equal, with windows", (0, WINDOW): "equal, with windows in some layers"}
    return name, text[tuple(windows)] + (", in float32" if family in NO_FLOAT64 else "")


def rows(families: list[str] = FAMILIES) -> dict[str, tuple[str, str]]:
    """Every family's row; a family that is neither equal nor refused has what went wrong."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    found = {}
    for family in families:
        try:
            found[family] = row_of(family)
        except Exception as error:
            found[family] = ("", f"neither: {type(error).__name__}: {error}")
    return found
