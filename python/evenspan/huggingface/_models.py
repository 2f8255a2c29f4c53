"""What a Hugging Face model may be, and what of it the simulator must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenspan._errors import UnsupportedError

DROPOUTS = ("attention_dropout", "attn_dropout", "attn_pdrop", "attention_probs_dropout_prob")
LAYER_TYPES = ("full_attention", "sliding_attention")


def _rope_types(config: Any) -> set[str]:
    """Return the types of rotary embedding: transformers 5 has one set of parameters, or one for each layer type."""
    found: set[str] = set()
    for field in ("rope_parameters", "rope_scaling"):
        parameters = getattr(config, field, None)
        if not isinstance(parameters, Mapping):
            continue
        for one in (parameters, *(x for x in parameters.values() if isinstance(x, Mapping))):
            name = one.get("rope_type", one.get("type"))
            if isinstance(name, str):
                found.add(name)
    return found


def refuse_unsupported(model: Any, config: Any) -> None:
    """Refuse what the configuration asks for and is not computed here, each with its rule, value and remedy."""

    def given(*names: str) -> str:
        values = {name: getattr(config, name, None) for name in names}
        return ", ".join(f"{name}={value}" for name, value in values.items() if value)

    by_length = [name for name in sorted(_rope_types(config)) if "dynamic" in name or name == "longrope"]
    layers = sorted(set(getattr(config, "layer_types", None) or ()).difference(LAYER_TYPES))
    sinks = [name for name, _ in model.named_parameters() if name.rsplit(".", 1)[-1] == "sinks"]
    refused = (
        (
            "rotary embeddings must not depend on the sequence length, of which a rank sees its part",
            "rope_type=" + ", ".join(by_length) if by_length else "",
            "use default, linear, llama3 or yarn",
        ),
        ("attention has no dropout here", given(*DROPOUTS), "build the model with 0"),
        ("scores have no soft cap here", given("attn_logit_softcapping"), "build the model with None"),
        ("attention has no sinks here", sinks[0] if sinks else "", "use a model without"),
        (
            "layers must be of the types " + ", ".join(LAYER_TYPES),
            "layer_types=" + ", ".join(layers) if layers else "",
            "use a model of these",
        ),
        (
            "the loss over the router must be off, a rank sees its part of the tokens",
            given("output_router_logits"),
            "set it to False",
        ),
    )
    for rule, value, remedy in refused:
        if value:
            raise UnsupportedError(f"[attach] {rule}; the model has {value}; {remedy}")


def sizes_of(config: Any, *, needed: bool) -> tuple[int, int, int, int] | None:
    """Return layers, hidden size, intermediate size and vocabulary; None if some are unknown and none `needed`."""
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    missing = [name for name in names if not isinstance(getattr(config, name, None), int)]
    if missing and not needed:
        return None
    if missing:
        raise UnsupportedError(
            f"[attach] a profile simulates the model by its sizes, its configuration has no {', '.join(missing)}; "
            "attach without a profile"
        )
    layers, hidden, intermediate, vocabulary = (int(getattr(config, name)) for name in names)
    return layers, hidden, intermediate, vocabulary
