"""The attention function that `attach` gives to a Hugging Face model."""

from __future__ import annotations

import math
from typing import Any

import torch

from evenspan import _evenspan
from evenspan._errors import InvalidArgumentError, UnsupportedError

NAME = "evenspan"  # of the attention function; also the key under which a batch carries its step to it

# Keywords of the attention interface that change no score: what the plan says already, and what concerns others.
_HARMLESS = {
    NAME, "cache_position", "deterministic", "num_items_in_batch", "output_attentions", "output_hidden_states",
    "output_router_logits", "past_key_values", "position_embeddings", "position_ids", "return_dict", "shift_labels",
    "use_cache",
}  # fmt: skip


class Step:
    """What the attention function must know of a batch; it travels through the model as a keyword argument."""

    def __init__(self, executable: _evenspan.Executable, longest: int) -> None:
        """Keep the executable alive; `longest` is the longest document in tokens."""
        self.executable = executable
        self.handle = executable.handle
        self.num_tokens = executable.num_tokens
        self.longest = longest


def attention_function(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute what transformers' attention interface asks for.

    Args:
        module: The attention layer.
        query: [1, heads, tokens, head_dim].
        key: [1, kv_heads, tokens, head_dim].
        value: [1, kv_heads, tokens, head_dim].
        attention_mask: Must be None: documents and causality are the plan's.
        dropout: Must be 0.
        scaling: Of the scores; head_dim ** -0.5 by default.
        sliding_window: Must not be shorter than the longest document.
        softcap: Must be None.
        is_causal: Must not be False.
        s_aux: Must be None.
        **kwargs: Holds the batch's step under "evenspan"; others must be None, or not change the scores.

    Returns:
        [1, tokens, heads, head_dim], and None for the attention weights.

    Raises:
        UnsupportedError: The model asks for something that is not computed here.
        InvalidArgumentError: The batch does not come from `Context.shard`.
    """
    step = kwargs.get(NAME)
    if not isinstance(step, Step):
        raise InvalidArgumentError("[attention] the model must be called as model(**batch), a batch of Context.shard")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    refused = {
        "attention_mask": attention_mask is not None,
        "dropout": dropout != 0.0,
        "softcap": softcap is not None,
        "s_aux": s_aux is not None,
        "is_causal": not causal,
        **{name: value is not None for name, value in kwargs.items() if name not in _HARMLESS},
    }
    unknown = [name for name, given in refused.items() if given]
    if unknown:
        values = {"dropout": dropout, "softcap": softcap, "is_causal": causal}
        what = ", ".join(f"{name}={values[name]}" if name in values else name for name in unknown)
        raise UnsupportedError(
            "[attention] attention must be causal inside documents, without mask, dropout, soft cap, sinks (s_aux) and "
            f"biases; the model asks for {what}; change its configuration or use another"
        )
    if sliding_window is not None and sliding_window < step.longest:
        raise UnsupportedError(
            f"[attention] a sliding window shorter than a document is not supported, the window is {sliding_window} "
            f"and the longest document {step.longest} tokens; split the documents or use full attention"
        )
    if query.dim() != 4 or query.size(0) != 1 or query.size(2) != max(step.num_tokens, 1):
        raise InvalidArgumentError(
            f"[attention] queries must be [1, heads, {max(step.num_tokens, 1)}, head_dim] as the batch of "
            f"Context.shard has them, they are {list(query.shape)}"
        )
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, head_dim]
    head_dim = q.size(2)
    if scaling is not None and not math.isclose(scaling, head_dim**-0.5, rel_tol=1e-9):
        q = q * (scaling * head_dim**0.5)
    if step.num_tokens > 0:
        return torch.ops.evenspan.attention(q, k, v, step.handle).unsqueeze(0), None
    # The dummy token sees itself alone. The ranks that hold tokens exchange with this one nevertheless, backward too.
    nothing = torch.ops.evenspan.attention(q[:0], k[:0], v[:0], step.handle)
    dummy = v.repeat_interleave(q.size(1) // v.size(1), dim=1)
    return torch.cat((nothing, dummy)).unsqueeze(0), None
