"""Linear attention and short convolutions on tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
import torch.distributed as dist

from evenspan import _evenspan
from evenspan._arguments import described, flag, real_number, text, whole_number
from evenspan._errors import InvalidArgumentError
from evenspan._sharding import bind_for, telling

Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, float, torch.Tensor],
    tuple[torch.Tensor, torch.Tensor],
]


@overload
def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    gate: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    plan: _evenspan.Plan,
    group: dist.ProcessGroup | None = None,
    transport: str = "all_gather",
    state_blocks: int = 0,
    scale: float | None = None,
    normalize: bool = False,
    return_final_state: Literal[False] = False,
    states: _evenspan.SavedStates | None = None,
    kernel: Kernel | None = None,
) -> torch.Tensor: ...
@overload
def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    gate: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    plan: _evenspan.Plan,
    group: dist.ProcessGroup | None = None,
    transport: str = "all_gather",
    state_blocks: int = 0,
    scale: float | None = None,
    normalize: bool = False,
    return_final_state: Literal[True],
    states: _evenspan.SavedStates | None = None,
    kernel: Kernel | None = None,
) -> tuple[torch.Tensor, torch.Tensor]: ...
def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    gate: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    plan: _evenspan.Plan,
    group: dist.ProcessGroup | None = None,
    transport: str = "all_gather",
    state_blocks: int = 0,
    scale: float | None = None,
    normalize: bool = False,
    return_final_state: bool = False,
    states: _evenspan.SavedStates | None = None,
    kernel: Kernel | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Linear attention along every document over all ranks, on this rank's rows.

    For each head the state S, key_dim x value_dim, begins every document at 0 or `initial_state` and goes on as
    ``S = A S + b k v^T``, and the output is ``scale * S^T q``. A is the identity, or the decay ``exp(gate)``; with
    `beta` it is ``(I - beta k k^T)`` times that, and b is beta (the delta rule), otherwise b is 1. Plain linear
    attention, Lightning Attention, RetNet, Mamba-2, GLA, DeltaNet, Gated DeltaNet and KDA are of this form.

    Any plan serves, as it is, whatever its heads and head_dim: one placement for softmax and linear layers.
    Differentiable in all tensors. Every rank calls it and its backward pass, in the same order, without rows too.

    Args:
        query: This rank's rows, [tokens, heads, key_dim] of the plan's type.
        key: [tokens, heads, key_dim].
        value: [tokens, heads, value_dim].
        gate: Logarithms of decays, at most 0: [heads] for all tokens (its gradient is this rank's part of the sum),
            [tokens, heads], or [tokens, heads, key_dim].
        beta: [tokens, heads], for the delta rule.
        initial_state: [documents, heads, key_dim, value_dim] in float32 (float64 for float64 plans); read where a
            document begins on this rank. Its gradient is 0 for the other documents.
        plan: The same plan on every rank.
        group: A process group of `plan.ranks` ranks.
        transport: How states travel between ranks: ring, all_gather, pipelined, logarithmic or two_level.
        state_blocks: For pipelined: parts of the heads that follow each other; 0 chooses.
        scale: Of the queries, finite and not 0; key_dim ** -0.5 by default.
        normalize: Divide by the same sum with values 1; without `beta` and states.
        return_final_state: Return the states after the documents as well, like `initial_state`: those of documents that
            end on this rank, 0 for the others, so that the sum over the ranks holds all.
        states: What a layer that is computed again in backward (activation checkpointing) takes its states from: the
            first call with it communicates, further ones with the same inputs send nothing. Not with
            `return_final_state`.
        kernel: A function of (query, key, value, gate, beta, scale, state), all of one segment, that returns output and
            state after it, differentiable by autograd; used for the local part instead of Evenspan's.

    Returns:
        [tokens, heads, value_dim], and with `return_final_state` the states.

    Raises:
        InvalidArgumentError: The tensors do not fit the plan or each other, a gate is above 0, a beta not finite, a
            division by 0.
        CommunicationError: A rank failed, or the ranks' layers differ.
    """
    operation = "linear_attention"
    with telling(operation, group):
        transport = text(operation, "transport", transport)
        state_blocks = whole_number(operation, "state_blocks", state_blocks)
        factor = None if scale is None else real_number(operation, "scale", scale)
        if factor == 0:
            raise InvalidArgumentError(f"[{operation}] scale must not be 0, the output would be; leave it out")
        normalize = flag(operation, "normalize", normalize)
        return_final_state = flag(operation, "return_final_state", return_final_state)
        if states is not None and not isinstance(states, _evenspan.SavedStates):
            raise InvalidArgumentError(
                f"[{operation}] states must be of evenspan.SavedStates, it is {described(states)}; give one, or leave "
                "it out"
            )
        if kernel is not None and not callable(kernel):
            raise InvalidArgumentError(
                f"[{operation}] kernel must be a function, it is {described(kernel)}; give one, or leave it out"
            )
    optional = {"gate": gate, "beta": beta, "initial_state": initial_state}
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    executable = bind_for(operation, plan, group, query=query, key=key, value=value, **given)
    output, state = _evenspan.linear_attention(
        query,
        key,
        value,
        gate,
        beta,
        initial_state,
        executable,
        transport=transport,
        state_blocks=state_blocks,
        scale=0.0 if factor is None else factor,
        normalize=normalize,
        final_state=return_final_state,
        states=states,
        kernel=None if kernel is None else functools.partial(_run, kernel),
    )
    return output if state is None else (output, state)


def _run(kernel: Kernel, *segment: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a caller's kernel, which must return what `Kernel` says."""
    made: Any = kernel(*segment)
    if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(x, torch.Tensor) for x in made):
        raise InvalidArgumentError(
            f"[linear_attention] kernel must return two tensors, output and state, it returned {described(made)}; "
            "return both"
        )
    return made


def short_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    plan: _evenspan.Plan,
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """Convolve every document causally, channel by channel, on this rank's rows.

    ``y[t, c] = bias[c] + sum over i < width of weight[c, i] * x[t - (width - 1) + i, c]``, with 0 before a document's
    begin. Rows that other ranks hold come from them, and their gradients go back. Differentiable; every rank calls it,
    and the backward pass, in the same order.

    Args:
        x: This rank's rows, [tokens, channels].
        weight: [channels, width].
        bias: [channels].
        plan: The same plan on every rank.
        group: A process group of `plan.ranks` ranks.

    Returns:
        [tokens, channels].

    Raises:
        InvalidArgumentError: The tensors do not fit the plan or each other.
        CommunicationError: A rank failed.
    """
    given = {} if bias is None else {"bias": bias}
    executable = bind_for("short_convolution", plan, group, x=x, weight=weight, **given)
    return _evenspan.short_convolution(x, weight, bias, executable)
