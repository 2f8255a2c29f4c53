"""Exact attention over packed documents whose tokens are spread over ranks.

`plan` decides who holds which tokens, `shard` takes a rank's rows, `attention` computes on them, `unshard` puts the
whole back together, and `attach` does all of it for a Hugging Face causal language model. `linear_attention` and
`short_convolution` compute recurrent layers on the same plans.

A `group` is a `torch.distributed` process group; None is the default group, or this process alone when
`torch.distributed` is not initialised. Calls that take a group are made by all of its ranks, in the same order.
"""

from __future__ import annotations

from evenspan._errors import (
    CommunicationError,
    Error,
    InvalidArgumentError,
    ResourceError,
    UnsupportedError,
)
from evenspan._evenspan import VERSION, Executable, Plan, SavedStates
from evenspan._linear import linear_attention, short_convolution
from evenspan._sharding import attention, bind, plan, shard, unshard
from evenspan.huggingface import Context, attach

__version__ = VERSION

__all__ = [
    "CommunicationError",
    "Context",
    "Error",
    "Executable",
    "InvalidArgumentError",
    "Plan",
    "ResourceError",
    "SavedStates",
    "UnsupportedError",
    "__version__",
    "attach",
    "attention",
    "bind",
    "linear_attention",
    "plan",
    "shard",
    "short_convolution",
    "unshard",
]
