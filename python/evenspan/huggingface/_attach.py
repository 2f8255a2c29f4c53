"""`attach`: what makes a Hugging Face causal language model train on packed documents over a group of ranks."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.distributed as dist

from evenspan import _evenspan
from evenspan._errors import InvalidArgumentError
from evenspan._groups import communicator_of
from evenspan.huggingface._attention import NAME
from evenspan.huggingface._context import Context
from evenspan.huggingface._hooks import let_go
from evenspan.huggingface._interface import implementations, put_back, register, set_attention
from evenspan.huggingface._models import refuse_unsupported, shape_by_config, sizes_of, text_config_of
from evenspan.huggingface._plans import Plans
from evenspan.huggingface._probe import prove
from evenspan.huggingface._wrappers import runnable, unwrapped


def attach(
    model: Any,
    group: dist.ProcessGroup | None = None,
    *,
    average: bool = False,
    timeout: float | None = None,
    strategy: str = _evenspan.DEFAULT_STRATEGY,
    ranks_per_node: int = 0,
    topology: str | os.PathLike[str] | None = None,
    ranks_per_group: int = 0,
    token_slack: float = 0.1,
    profile: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | str | None = None,
) -> Context:
    """Make a Hugging Face causal language model train on packed documents that are spread over a group of ranks.

    Sets the model's attention function to "evenspan"; parameters are not touched. Every rank holds the same weights.
    What cannot be proved of the model is refused: by its configuration, and by running it on 16 tokens, once with
    torch's attention and once as a rank's part, without gradients and leaving nothing behind. Under FSDP all ranks
    attach at once. A model on the meta device is run when its first batch is sharded.

    Args:
        model: A `transformers` causal language model whose attention goes through the attention interface, or a wrapper
            of one (DistributedDataParallel, fully_shard, torch.compile), which may also come after. A model that was
            attached before is detached from that context.
        group: The ranks that share a batch; None is the default group, or this process alone.
        average: Whether something that evenspan does not know (DeepSpeed) averages the gradients over these ranks;
            DistributedDataParallel and fully_shard are found without it.
        timeout: Seconds that a wait for another rank may take; None is what the group has, 300 at its first use.
        strategy: As in `evenspan.plan`; "auto" simulates this model's steps.
        ranks_per_node: As in `evenspan.plan`.
        topology: As in `evenspan.plan`.
        ranks_per_group: As in `evenspan.plan`.
        token_slack: As in `evenspan.plan`.
        profile: As in `evenspan.plan`; without one, work is weighed by this model's operations.
        dtype: Type of queries, keys and values that the first batch is planned for, by default the one that they have
            outside of autocast; or its name. From the second batch on plans follow what autocast makes of them.

    Raises:
        UnsupportedError: The model has dropout in attention, soft caps, sinks, rotary embeddings that depend on the
            sequence length, layers other than attention, a loss over its router, attention of its own that does not go
            through the interface, another mask than causal ones and windows, layers of different widths; or it does
            not use the positions that it is given, mixes tokens outside of attention, or differs between the ranks.
        InvalidArgumentError: The model is none of transformers, or the profile does not suit it, as in `evenspan.plan`.
        Error: transformers is not installed.
    """
    register()
    if not isinstance(average, bool):
        raise InvalidArgumentError(
            f"[attach] average must be True or False, it is {average!r}; leave it out, DistributedDataParallel and "
            "fully_shard are found"
        )
    given, model = model, unwrapped(model)
    if not hasattr(model, "set_attn_implementation"):
        raise InvalidArgumentError(
            f"[attach] the model must be one of transformers, it is a {type(model).__name__}; give an "
            "AutoModelForCausalLM, or a wrapper of one"
        )
    communicator_of(group, timeout)
    let_go(model)
    config = text_config_of(model)
    refuse_unsupported(model, config)
    before = implementations(model)
    set_attention(model, config, NAME)
    try:
        there = not any(parameter.is_meta for parameter in model.parameters())
        proof = functools.partial(prove, model, runnable(given), config, group)
        shape = proof() if there else shape_by_config(model, config)
        options = {
            "strategy": strategy,
            "ranks_per_node": ranks_per_node,
            "topology": topology,
            "ranks_per_group": ranks_per_group,
            "token_slack": token_slack,
            "profile": profile,
        }
        sizes = sizes_of(config, needed=profile is not None or strategy == "auto")
        plans = Plans(group, shape, sizes, options, dtype, None if there else proof)
        return Context(model, given, config, group, average, plans, before)
    except Exception:
        put_back(before)
        raise
