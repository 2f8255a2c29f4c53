"""The attention function that `attach` gives to a Hugging Face model."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from evenspan import _evenspan
from evenspan._errors import InvalidArgumentError, UnsupportedError

NAME = "evenspan"  # of the attention function; also the key under which a batch carries its part to it

# Keywords of the attention interface that change no score: what the plan says already, and what concerns others.
_HARMLESS = {
    NAME, "cache_position", "deterministic", "logits_to_keep", "num_items_in_batch", "output_attentions",
    "output_hidden_states", "output_router_logits", "past_key_values", "position_embeddings", "position_ids",
    "return_dict", "shift_labels", "use_cache",
}  # fmt: skip


class Part(abc.ABC):
    """What the attention function must know of a batch; it travels through the model as a keyword argument."""

    num_tokens: int

    @abc.abstractmethod
    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        sliding_window: int | None,
    ) -> torch.Tensor:
        """Return the layer's attention [tokens, heads, head_dim] of these rows, [tokens, (kv_)heads, head_dim]."""


class Step(Part):
    """A rank's part of a training step's batch."""

    def __init__(
        self,
        windows: Mapping[int, int],
        executables: Mapping[int, _evenspan.Executable],
        dtype: torch.dtype,
        expect: Callable[[torch.dtype], None],
    ) -> None:
        """Keep the executables alive.

        Args:
            windows: Of each layer, by its layer_idx.
            executables: What computes layers of each window.
            dtype: Of their queries, keys and values.
            expect: Is told when layers have a narrower type, as under autocast: later batches are for that.
        """
        self._windows = dict(windows)
        self._one = next(iter(executables)) if len(executables) == 1 else None
        self._executables = list(executables.values())
        self._handles = {window: executable.handle for window, executable in executables.items()}
        self._dtype = dtype
        self._expect = expect
        self.num_tokens = self._executables[0].num_tokens

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        sliding_window: int | None,
    ) -> torch.Tensor:
        """Compute these rows with all ranks.

        Raises:
            InvalidArgumentError: The layer has another window than the model had when it was attached.
        """
        window = self._windows[int(module.layer_idx)] if self._one is None else self._one  # type: ignore[arg-type]
        if sliding_window is not None and sliding_window != window:
            raise InvalidArgumentError(
                f"[attention] a model must stay as it was when it was attached, a layer's window was "
                f"{window or 'none'} and is {sliding_window}; attach it anew"
            )
        device = query.device.type
        if torch.is_autocast_enabled(device):  # as torch's scaled_dot_product_attention does
            dtype = torch.get_autocast_dtype(device)
            query, key, value = (x if x.dtype == torch.float64 else x.to(dtype) for x in (query, key, value))
        handle = self._handles[window]
        dtype = query.dtype
        if dtype != self._dtype:
            if torch.promote_types(dtype, self._dtype) != self._dtype:
                raise InvalidArgumentError(
                    f"[attention] queries must have the type that the model had when it was attached, {self._dtype}, "
                    f"or a narrower one, they have {dtype}; attach with dtype={dtype}"
                )
            self._expect(dtype)
            query, key, value = (x.to(self._dtype) for x in (query, key, value))
        head_dim = query.size(2)
        if scaling is not None and not math.isclose(scaling, head_dim**-0.5, rel_tol=1e-9):
            query = query * (scaling * head_dim**0.5)
        if self.num_tokens > 0:
            output: torch.Tensor = torch.ops.evenspan.attention(query, key, value, handle)
            return output.to(dtype)
        # The dummy token sees itself alone. Ranks that hold tokens exchange with this one nevertheless, backward too.
        nothing = torch.ops.evenspan.attention(query[:0], key[:0], value[:0], handle)
        return torch.cat((nothing, value.repeat_interleave(query.size(1) // value.size(1), dim=1))).to(dtype)


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
        attention_mask: Must be None: documents, causality and windows are the plan's.
        dropout: Must be 0.
        scaling: Of the scores; head_dim ** -0.5 by default.
        sliding_window: None, or the window that the layer had when the model was attached.
        softcap: Must be None.
        is_causal: Must not be False.
        s_aux: Must be None.
        **kwargs: Holds the batch's part under "evenspan"; others must be None, or not change the scores.

    Returns:
        [1, tokens, heads, head_dim], and None for the attention weights.

    Raises:
        UnsupportedError: The model asks for something that is not computed here.
        InvalidArgumentError: The batch does not come from `Context.shard`.
    """
    part = kwargs.get(NAME)
    if not isinstance(part, Part):
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
    if query.dim() != 4 or query.size(0) != 1 or query.size(2) != max(part.num_tokens, 1):
        raise InvalidArgumentError(
            f"[attention] queries must be [1, heads, {max(part.num_tokens, 1)}, head_dim] as the batch of "
            f"Context.shard has them, they are {list(query.shape)}"
        )
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, head_dim]
    return part.attend(module, q, k, v, scaling, sliding_window or None).unsqueeze(0), None
