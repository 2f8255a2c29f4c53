"""The proof that a model hears what it is told: wrong models of many kinds are caught, right ones are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import evenspan
import pytest
import torch
import transformers
from evenspan.huggingface._attention import NAME
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
KINDS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def make(config: str, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A model as transformers initialises it, whose scores are near 0: a probe must see faults nevertheless."""
    torch.manual_seed(3)
    made = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**SIZES | more))
    return made.to(dtype)


def around(module: torch.nn.Module, change: Callable[..., Any]) -> None:
    """Run change(forward, *args, **kwargs) instead of a module's forward."""
    module.forward = functools.partial(change, module.forward)


def drops_positions(model: Any) -> None:
    def change(forward: Any, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    around(model.model, change)


def shifts_given_positions(model: Any) -> None:
    def change(forward: Any, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, position_ids=None if position_ids is None else position_ids + 1, **kwargs)

    around(model.model, change)


def drops_positions_in_one_layer(model: Any) -> None:
    def change(forward: Any, hidden_states: Any, position_embeddings: Any, **kwargs: Any) -> Any:
        at = torch.arange(hidden_states.size(1)).expand(hidden_states.shape[:2])
        angles = model.model.rotary_emb(hidden_states, at)
        return forward(hidden_states=hidden_states, position_embeddings=angles, **kwargs)

    around(model.model.layers[1].self_attn, change)


def shifts_tokens(model: Any) -> None:
    around(model.model.layers[1].mlp, lambda forward, x: forward((x + x.roll(1, dims=1)) / 2))


def normalises_over_tokens(model: Any) -> None:
    around(model.model.norm, lambda forward, x: forward(x - x.mean(dim=1, keepdim=True)))


def attends_by_itself_in_one_layer(model: Any) -> None:
    def change(forward: Any, hidden_states: Any, **kwargs: Any) -> Any:
        x = hidden_states.unsqueeze(1)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).squeeze(1), None

    around(model.model.layers[2].self_attn, change)


def scales_by_length(model: Any) -> None:
    around(model.model.layers[0].self_attn.q_proj, lambda forward, x: forward(x) * (1 + 0.5 * x.size(1)))


def keeps_keywords(model: Any) -> None:
    def change(forward: Any, *args: Any, evenspan: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    around(model.model.layers[1].self_attn, change)


def has_dropout_that_its_configuration_lacks(model: Any) -> None:
    model.model.layers[1].self_attn.attention_dropout = 0.25


def in_attention(name: str) -> Callable[[Any], None]:
    """Give a keyword to the attention function, as models with caps, sinks and biases do."""

    def fault(model: Any) -> None:
        def change(forward: Any, hidden_states: Any, **kwargs: Any) -> Any:
            bias = torch.ones(1, 4, hidden_states.size(1), hidden_states.size(1))
            return forward(hidden_states, **kwargs, **{name: bias})

        around(model.model.layers[0].self_attn, change)

    return fault


def adds_to_the_mask(model: Any) -> None:
    def change(forward: Any, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        mask = attention_mask if attention_mask is None else torch.where(attention_mask, 0.5, -1e9).to(model.dtype)
        return forward(*args, attention_mask=mask, **kwargs)

    around(model.model.layers[0].self_attn, change)


def sees_the_future(model: Any) -> None:
    model.model.layers[1].self_attn.is_causal = False
    around(model.model.layers[1].self_attn, lambda forward, *a, **k: forward(*a, **k | {"attention_mask": None}))


def has_a_window_outside_of_its_mask(model: Any) -> None:
    around(model.model.layers[1].self_attn, lambda forward, *a, **k: forward(*a, **k, sliding_window=4))


def leaves_a_layer_out(model: Any) -> None:
    def change(forward: Any, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        return hidden if hidden.size(0) == 1 else forward(hidden, *args, **kwargs)

    around(model.model.layers[1], change)


def calls_attention_twice(model: Any) -> None:
    def change(forward: Any, hidden_states: Any, **kwargs: Any) -> Any:
        result = forward(hidden_states, **kwargs)
        return result if hidden_states.size(0) > 1 else forward(hidden_states, **kwargs)

    around(model.model.layers[1].self_attn, change)


def has_weights_of_no_number(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))


FAULTS = [
    (drops_positions, "as position_ids has it"),
    (shifts_given_positions, "queries of layer 0 differ"),
    (drops_positions_in_one_layer, "outputs of model.rotary_emb differ"),
    (shifts_tokens, "outputs of model.layers.1.mlp"),
    (normalises_over_tokens, "outputs of model.norm differ"),
    (attends_by_itself_in_one_layer, "outputs of model.layers.2.self_attn differ|2 of 3 layers"),
    (scales_by_length, "outputs of model.layers.0.self_attn.q_proj differ"),
    (keeps_keywords, "hand its keywords on"),
    (has_dropout_that_its_configuration_lacks, "dropout=0.25"),
    (in_attention("position_bias"), "bias|overflow"),
    (in_attention("s_aux"), "s_aux"),
    (in_attention("indices"), "indices"),
    (adds_to_the_mask, "another mask"),
    (sees_the_future, "another mask"),
    (has_a_window_outside_of_its_mask, "sliding_window=4 and a mask of all tokens"),
    (leaves_a_layer_out, "outputs of model.layers.1 differ"),
    (calls_attention_twice, "other layers do"),
    (has_weights_of_no_number, "not finite|differ by nan"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("fault", "text"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_models_that_do_not_hear_are_refused(fault: Callable[[Any], None], text: str, dtype: torch.dtype) -> None:
    model = make("LlamaConfig", dtype)
    fault(model)
    with pytest.raises(evenspan.UnsupportedError, match=text) as caught:
        evenspan.attach(model)
    assert str(caught.value).startswith("[attach] ") and str(caught.value).count("; ") >= 2
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_models_that_hear_are_taken(dtype: torch.dtype) -> None:
    deep = {"num_hidden_layers": 24, "layer_types": None}
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    for config, more in (
        ("LlamaConfig", deep), ("MixtralConfig", deep | experts), ("Qwen3Config", {"head_dim": 8}), ("GPT2Config", {}),
        ("Starcoder2Config", {"residual_dropout": 0.25}),  # a dropout behind attention, in its module
    ):  # fmt: skip
        if config == "GPT2Config":
            more = {"n_embd": 32, "n_head": 4, "n_layer": 3, "attn_pdrop": 0.0}
        if dtype == torch.float64:
            more = more | {"experts_implementation": "eager"}
        model = make(config, dtype, **more)
        context = evenspan.attach(model.train())
        assert model.config._attn_implementation == NAME
        (batch,) = context.shard([[[5, 6, 7], [8, 9]]])
        context.loss(model(**batch)).backward()


def test_windows_are_heard() -> None:
    """From the mask alone (PhiMoE), from mask and keyword, in some layers; far wider than the probe is long."""
    experts = {"num_local_experts": 2, "num_experts_per_tok": 2}
    some = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "head_dim": 8}
    for config, more, expected in (
        ("PhimoeConfig", {"sliding_window": 4096, **experts}, {0: 4096, 1: 4096, 2: 4096}),
        ("MistralConfig", {"sliding_window": 5}, {0: 5, 1: 5, 2: 5}),
        ("Gemma3TextConfig", {"sliding_window": 4096, **some}, {0: 4096, 1: 0, 2: 4096}),
        ("MistralConfig", {"sliding_window": None}, {0: 0, 1: 0, 2: 0}),
    ):
        context = evenspan.attach(make(config, **more))
        assert context._plans._shape.windows == expected


def test_nothing_is_left_behind() -> None:
    model = make("LlamaConfig", rope_scaling={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}).train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    functions = ALL_ATTENTION_FUNCTIONS["sdpa"], ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    random = torch.get_rng_state()
    evenspan.attach(model).detach()
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert functions == (ALL_ATTENTION_FUNCTIONS["sdpa"], ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_on_meta_is_proved_when_its_weights_are_there() -> None:
    for fault, refused in ((None, False), (shifts_tokens, True)):
        with torch.device("meta"):
            model = make("LlamaConfig")
        context = evenspan.attach(model)
        with pytest.raises(evenspan.UnsupportedError, match="weights must be there"):
            next(context.shard([[[5, 6, 7]]]))
        model = model.to_empty(device="cpu")
        model.load_state_dict(make("LlamaConfig").state_dict())
        model.model.rotary_emb = make("LlamaConfig").model.rotary_emb
        if fault is not None:
            fault(model)
        if refused:
            with pytest.raises(evenspan.UnsupportedError, match=r"mlp.* differ"):
                next(context.shard([[[5, 6, 7]]]))
        else:
            model(**next(context.shard([[[5, 6, 7]]])))
