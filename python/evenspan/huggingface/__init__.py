"""The drop-in for Hugging Face causal language models: `attach`, the Context that it returns, and a Trainer.

Example:
    with evenspan.attach(model, group) as context:
        for batch in context.shard(loader):
            loss = context.loss(model(**batch))
            loss.backward()
            context.reduce_gradients()
            optimizer.step()
            optimizer.zero_grad()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evenspan._errors import Error
from evenspan.huggingface._attach import attach
from evenspan.huggingface._context import Context

if TYPE_CHECKING:
    from evenspan.huggingface.trainer import Trainer as Trainer

__all__ = ["Context", "Trainer", "attach"]


def __getattr__(name: str) -> Any:
    """Import the Trainer where it is used: it needs transformers and accelerate.

    Raises:
        Error: One of these is not installed.
    """
    if name != "Trainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from evenspan.huggingface.trainer import Trainer
    except ImportError as error:
        raise Error(
            f"[Trainer] transformers and accelerate are needed and cannot be imported ({error}); install "
            "evenspan[huggingface]"
        ) from error
    return Trainer
