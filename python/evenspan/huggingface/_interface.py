"""transformers' AttentionInterface: which attention function a model calls."""

from __future__ import annotations

from typing import Any

from evenspan._errors import Error
from evenspan.huggingface._attention import NAME, attention_function
from evenspan.huggingface._models import refusal

TRUTH = "sdpa"  # the implementation that says what attention is: it has nothing but the interface's arguments


def register() -> None:
    """Make evenspan's attention function known by its name.

    Raises:
        Error: transformers is not installed.
    """
    try:
        from transformers import AttentionInterface
    except ImportError as error:
        raise Error(f"[attach] transformers is needed and cannot be imported ({error}); install it") from error
    AttentionInterface.register(NAME, attention_function)


def set_attention(model: Any, config: Any, name: str) -> None:
    """Set the implementation of a model, NAME or TRUTH; `config` is its decoder's.

    Raises:
        UnsupportedError: The model does not take it.
    """
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError, KeyError, AttributeError) as error:
        raise refusal(
            f"attention must be what torch's scaled_dot_product_attention computes, so that a model has it as {TRUTH}",
            f"{type(model).__name__} does not ({str(error).splitlines()[0]})",
            "use another model",
        ) from error
    if config._attn_implementation != name:  # transformers only warns
        raise refusal(
            "attention must go through transformers' AttentionInterface",
            f"that of {type(model).__name__} does not",
            "use another model",
        )


def implementations(model: Any) -> list[tuple[Any, Any]]:
    """Return every configuration inside the model with its implementation, for `put_back`."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            configs[id(config)] = config
    return [(config, config._attn_implementation) for config in configs.values()]


def put_back(found: list[tuple[Any, Any]]) -> None:
    """Undo what `set_attention` did since `implementations` returned this."""
    for config, implementation in found:
        config._attn_implementation_internal = implementation
