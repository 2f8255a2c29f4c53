"""The drop-in for Hugging Face causal language models: `attach`, and the Context that it returns.

Example:
    with evenspan.attach(model, group) as context:
        for batch in context.shard(loader):
            loss = context.loss(model(**batch))
            loss.backward()
            context.reduce_gradients()
            optimizer.step()
"""

from __future__ import annotations

from evenspan.huggingface._attach import attach
from evenspan.huggingface._context import Context

__all__ = ["Context", "attach"]
