"""What reaches a model's attention while it computes as its author meant it, with torch's attention."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch

from evenspan.huggingface._interface import TRUTH
from evenspan.huggingface._masks import CAUSAL, window_of
from evenspan.huggingface._models import Shape, refusal
from evenspan.huggingface._rows import epsilon


@dataclasses.dataclass
class Call:
    """What reached attention once: queries, keys, values and outputs of all rows, [rows, (kv_)heads, head_dim]."""

    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    window: int


@contextlib.contextmanager
def hearing() -> Iterator[list[Call]]:
    """Hear every call of torch's attention function, which has all of one document in a row of the batch.

    Raises:
        UnsupportedError: A call has a mask that no plan has, or computes something else than attention.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attend, make_mask = ALL_ATTENTION_FUNCTIONS[TRUTH], ALL_MASK_ATTENTION_FUNCTIONS[TRUTH]
    masks: list[tuple[torch.Tensor, int | None]] = []
    calls: list[Call] = []

    def make_heard_mask(*args: Any, **kwargs: Any) -> torch.Tensor:
        mask: torch.Tensor = make_mask(
            *args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        )
        masks.append((mask, window_of(kwargs["mask_function"])))
        return mask

    def attend_heard(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> Any:
        output, weights = attend(module, query, key, value, attention_mask, **kwargs)
        window = _window(module, attention_mask, masks, kwargs)
        _check_meaning(query, key, value, output, kwargs.get("scaling"), window)
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
        calls.append(Call(module, q, k, v, output.flatten(0, 1), window))
        return output, weights

    AttentionInterface.register(TRUTH, attend_heard)
    AttentionMaskInterface.register(TRUTH, make_heard_mask)
    try:
        yield calls
    finally:
        AttentionInterface.register(TRUTH, attend)
        AttentionMaskInterface.register(TRUTH, make_mask)


def _window(
    module: torch.nn.Module,
    mask: torch.Tensor | None,
    masks: list[tuple[torch.Tensor, int | None]],
    kwargs: dict[str, Any],
) -> int:
    """Return the window of a call, CAUSAL for none."""
    if mask is None:
        given = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if given is None else given
        window = CAUSAL if causal else None
    else:
        window = next((window for known, window in masks if _same(known, mask)), None)
    said = kwargs.get("sliding_window") or CAUSAL
    name = type(module).__name__
    if window is None:
        raise refusal(
            "attention must be causal inside documents, over all of a document or a window of it",
            f"{name} has another mask",
            "use another model",
        )
    if said not in (CAUSAL, window):
        raise refusal(
            "a layer's mask must have its sliding window",
            f"{name} has sliding_window={said} and a mask of {window or 'all'} tokens",
            "set the configuration's window to None",
        )
    return window


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether one is all of the other."""
    return a.shape == b.shape and a.stride() == b.stride() and a.data_ptr() == b.data_ptr()


def _check_meaning(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    scaling: float | None,
    window: int,
) -> None:
    """Refuse an output [documents, tokens, heads, dim] that is not softmax(scaling q k) v under the window."""
    exact = torch.float32 if query.device.type == "mps" else torch.float64
    q, k, v = (x.to(exact) for x in (query, key, value))
    k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.size(3) ** -0.5 if scaling is None else scaling)
    at = torch.arange(q.size(2), device=q.device)
    ago = at[:, None] - at[None, :]
    allowed = ago >= 0 if window == CAUSAL else (ago >= 0) & (ago < window)
    expected = (scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v).transpose(1, 2)
    # A score rounds to steps of its size, the weights add up to 1: the error is some steps of max |v| times that.
    error, largest = (output.to(exact) - expected).abs().max(), v.abs().max()
    if error > 8 * epsilon(query) * (1 + scores.abs().max()) * largest:
        raise refusal(
            "attention must be softmax(scaling q k) v",
            f"a layer's attention differs from it by {error:.2g} where values are up to {largest:.2g}",
            "use a model without biases, caps and sinks",
        )


def shape_of(calls: list[Call], num_tokens: int) -> Shape:
    """Return what all calls have in common, and refuse what they have not."""
    if not calls:
        raise refusal(
            "attention must go through transformers' AttentionInterface", "no layer's does", "use another model"
        )
    rows = {tensor.size(0) for call in calls for tensor in (call.query, call.key)}
    if rows != {num_tokens}:
        raise refusal(
            "every layer's attention must be among all tokens",
            f"calls of it have {sorted(rows)} rows where there are {num_tokens} tokens",
            "use another model",
        )
    shapes = {(c.query.size(1), c.key.size(1), c.query.size(2), c.key.size(2), c.value.size(2)) for c in calls}
    text = " and ".join(
        f"{h} heads, {k} kv heads, widths {q} of queries and {v} of values" for h, k, q, _, v in sorted(shapes)
    )
    heads, kv_heads, head_dim, key_dim, value_dim = next(iter(shapes))
    if len(shapes) > 1:
        raise refusal("all layers must have the same heads and widths", f"there are {text}", "use another model")
    if not head_dim == key_dim == value_dim:
        raise refusal("queries, keys and values must have one width", f"there are {text}", "use another model")
    windows: dict[int, int] = {}
    one = len({call.window for call in calls}) == 1
    for i, call in enumerate(calls):
        layer = getattr(call.module, "layer_idx", i if one else None)
        if not isinstance(layer, int) or windows.setdefault(layer, call.window) != call.window:
            raise refusal(
                "layers of several windows must have a number of their own, layer_idx",
                f"{type(call.module).__name__} has {layer}",
                "use another model",
            )
    return Shape(heads, kv_heads, head_dim, windows, calls[0].query.dtype, len(calls))
