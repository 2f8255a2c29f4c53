"""What a Hugging Face model may be, and what of it the simulator must know."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from evenspan._errors import UnsupportedError
from evenspan.huggingface._masks import CAUSAL

DROPOUTS = ("attention_dropout", "attn_dropout", "attn_pdrop", "attention_probs_dropout_prob")
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the attention of every layer of a model is."""

    heads: int
    kv_heads: int
    head_dim: int
    windows: Mapping[int, int]  # of each layer by its layer_idx: tokens that a token sees, or CAUSAL
    dtype: torch.dtype
    calls: int  # of attention in a forward pass


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


def text_config_of(model: Any) -> Any:
    """Return the configuration of the model's decoder."""
    try:
        return model.config.get_text_config()
    except (AttributeError, ValueError) as error:
        raise refusal(
            "the model must be a transformers causal language model with one decoder",
            f"it is a {type(model).__name__}, whose configuration has none or several",
            "attach the decoder's model",
        ) from error


def refusal(rule: str, value: str, remedy: str) -> UnsupportedError:
    """Return the error of a model that is not taken."""
    return UnsupportedError(f"[attach] {rule}; {value}; {remedy}")


def refuse_unsupported(model: Any, config: Any) -> None:
    """Refuse what the configuration asks for and is not computed here, each with its rule, value and remedy."""

    def given(*names: str) -> str:
        values = {name: getattr(config, name, None) for name in names}
        return ", ".join(f"{name}={value}" for name, value in values.items() if value)

    by_length = [name for name in sorted(_rope_types(config)) if "dynamic" in name or name == "longrope"]
    layers = sorted(set(_layer_types(config)).difference(LAYER_TYPES))
    sinks = [name for name, _ in model.named_parameters() if name.rsplit(".", 1)[-1] == "sinks"]
    refused = (
        ("the model must be a decoder alone", given("is_encoder_decoder"), "use its decoder's model"),
        (
            "rotary embeddings must not depend on the sequence length, of which a rank sees its part",
            "rope_type=" + ", ".join(by_length) if by_length else "",
            "use default, linear, llama3 or yarn",
        ),
        ("attention has no dropout here", given(*DROPOUTS), "build the model with 0"),
        ("layers must not be left out by chance", given("layerdrop", "decoder_layerdrop"), "build the model with 0"),
        ("scores have no soft cap here", given("attn_logit_softcapping"), "build the model with None"),
        ("attention has no sinks here", sinks[0] if sinks else "", "use a model without"),
        (
            "layers must be of the types " + ", ".join(LAYER_TYPES),
            "layer_types=" + ", ".join(layers) if layers else "",
            "use a model of these",
        ),
        (
            "attention must be to all keys of a document or a window",
            given("index_topk"),
            "use a model without an index",
        ),
        (
            "the loss over the router must be off, a rank sees its part of the tokens",
            given("output_router_logits"),
            "set it to False",
        ),
    )
    for rule, value, remedy in refused:
        if value:
            raise refusal(rule, f"the model has {value}", remedy)


def _layer_types(config: Any) -> tuple[str, ...]:
    for name in ("layer_types", "layers_block_type"):
        found = getattr(config, name, None)
        if found:
            return tuple(str(kind) for kind in found)
    return ()


def shape_by_config(model: Any, config: Any) -> Shape:
    """Return what the configuration says of attention, of a model whose weights are not there.

    Raises:
        UnsupportedError: It does not say it.
    """
    heads, layers = (getattr(config, name, None) for name in ("num_attention_heads", "num_hidden_layers"))
    if not isinstance(heads, int) or not isinstance(layers, int):
        raise refusal(
            "without weights the configuration must say num_attention_heads and num_hidden_layers",
            f"{type(config).__name__} does not",
            "attach when the weights are there",
        )
    window = getattr(config, "sliding_window", None) or CAUSAL
    kinds = _layer_types(config) or ("sliding_attention",) * layers
    return Shape(
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        windows={i: window if kind == "sliding_attention" else CAUSAL for i, kind in enumerate(kinds)},
        dtype=model.dtype,
        calls=layers,
    )


def check_layers(config: Any, shape: Shape) -> None:
    """Refuse a model of which not all layers were heard, or with other windows than its configuration has for them."""
    layers = getattr(config, "decoder_layers", getattr(config, "num_hidden_layers", len(shape.windows)))
    if layers not in (len(shape.windows), shape.calls):  # a layer may call twice, or be called many times
        raise refusal(
            "every layer's attention must go through transformers' AttentionInterface",
            f"that of {len(shape.windows)} of {layers} layers does",
            "use another model",
        )
    window = getattr(config, "sliding_window", None) or CAUSAL
    kinds = _layer_types(config)
    for layer, heard in shape.windows.items():
        if layer < len(kinds):
            expected = window if kinds[layer] == "sliding_attention" else CAUSAL
        elif kinds or heard:
            expected = heard
        else:
            expected = window
        if heard != expected:
            raise refusal(
                "a layer's window must reach its attention",
                f"the configuration has {expected or 'none'} for layer {layer}, and its attention {heard or 'none'}",
                "set the configuration's sliding_window to None",
            )


def special_tokens(config: Any) -> dict[str, int]:
    """Return the ids of tokens that mean something, by the names of the fields."""
    found: dict[str, int] = {}
    for part in (config, getattr(config, "text_config", None)):
        for name, value in vars(part).items() if part is not None else ():
            if name.endswith(("token_id", "token_index")) and isinstance(value, int):
                found[name] = value
    return found


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


def vocabulary_of(model: Any, config: Any) -> int:
    """Return how many token ids the model has embeddings for."""
    try:
        return int(model.get_input_embeddings().num_embeddings)  # may have been resized
    except (NotImplementedError, AttributeError):
        return int(config.vocab_size)
