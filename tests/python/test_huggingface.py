"""The drop-in for Hugging Face models in one process: what it refuses, and how it reads batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import evenspan
import pytest
import torch
import transformers
from evenspan.huggingface._attention import attention_function

SHAPE = {
    "vocab_size": 11, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def make(config: str, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**SHAPE, **options))


def llama(**options: Any) -> Any:
    return make("LlamaConfig", **options)


@pytest.mark.parametrize(
    ("config", "options", "rule", "value", "remedy"),
    [
        ("LlamaConfig", {"attention_dropout": 0.1}, "no dropout", "attention_dropout=0.1", "build the model with 0"),
        ("GPT2Config", {}, "no dropout", "attn_pdrop=0.1", "build the model with 0"),
        (
            "LlamaConfig",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "must not depend on the sequence length", "rope_type=dynamic", "use default",
        ),
        (
            "Phi3Config",
            {
                "original_max_position_embeddings": 32,
                "rope_scaling": {
                    "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4,
                },
            },
            "must not depend on the sequence length", "rope_type=longrope", "use default",
        ),
        ("Gemma2Config", {}, "no soft cap", "attn_logit_softcapping=50.0", "build the model with None"),
        (
            "GptOssConfig",
            {"num_local_experts": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "no sinks", "self_attn.sinks", "use a model without",
        ),
        (
            "Qwen3NextConfig",
            {"num_experts": 2, "layer_types": ["linear_attention"]},
            "layers must be of the types", "layer_types=linear_attention", "use a model of these",
        ),
        (
            "MixtralConfig", {"num_local_experts": 2, "output_router_logits": True},
            "the loss over the router", "output_router_logits=True", "set it to False",
        ),
        ("FalconConfig", {}, "AttentionInterface", "FalconForCausalLM", "use another model"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_models_that_are_refused(
    config: str, options: dict[str, Any], rule: str, value: str, remedy: str, device: str
) -> None:
    with torch.device(device):
        model = make(config, **options)
    with pytest.raises(evenspan.UnsupportedError) as caught:
        evenspan.attach(model)
    text = str(caught.value)
    assert text.startswith("[attach] ")
    assert rule in text and value in text and remedy in text


@pytest.mark.parametrize("rope_type", ["linear", "llama3", "yarn"])
def test_rotary_embeddings_that_are_fixed_are_taken(rope_type: str) -> None:
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if rope_type == "llama3" else {}
    if rope_type != "linear":
        more["original_max_position_embeddings"] = 32
    model = llama(rope_scaling={"rope_type": rope_type, "factor": 2.0, "rope_theta": 1e4, **more}).eval()
    documents = [[1, 2, 3, 4, 5], [6, 7]]
    with torch.no_grad():
        expected = torch.cat([model(input_ids=torch.tensor([d])).logits[0] for d in documents])
        context = evenspan.attach(model)
        found = model(**next(context.shard([documents]))).logits[0]
    torch.testing.assert_close(found, expected)


def test_the_attention_function_refuses() -> None:
    model = llama()
    with pytest.raises(evenspan.InvalidArgumentError, match=r"Context\.shard"):
        context = evenspan.attach(model)
        model(input_ids=torch.tensor([[1, 2]]))
    batch = next(context.shard([[[1, 2, 3]]]))
    module = model.model.layers[0].self_attn
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 1, 3, 8)
    step = {"evenspan": batch["evenspan"]}
    for bad, text in (
        ({"dropout": 0.1}, "dropout=0.1"), ({"softcap": 30.0}, "softcap=30.0"), ({"s_aux": torch.zeros(2)}, "s_aux"),
        ({"is_causal": False}, "is_causal=False"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
    ):  # fmt: skip
        with pytest.raises(evenspan.UnsupportedError, match=text):
            attention_function(module, q, k, k, None, **bad, **step)
    with pytest.raises(evenspan.UnsupportedError):
        attention_function(module, q, k, k, torch.zeros(1, 1, 3, 3), **step)
    with pytest.raises(evenspan.InvalidArgumentError, match="window was none and is 2"):
        attention_function(module, q, k, k, None, sliding_window=2, **step)


def test_labels_are_shifted_inside_documents() -> None:
    context = evenspan.attach(llama(), strategy="local")
    batch = next(context.shard([[[1, 2, 3], [], [4], [5, 6]]]))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["shift_labels"].tolist() == [[2, 3, -100, -100, 6, -100]]
    assert context.num_labels == 3
    assert context.plan.lengths == [3, 1, 2]


def test_the_next_batch_is_planned_while_one_runs() -> None:
    batches = [[[1, 2, 3], [4, 5]], [[6, 7]], [[1, 2], [3, 4, 5]], [[8, 9]]]  # the last has the lengths of the second
    context = evenspan.attach(llama())
    seen = []
    for batch in context.shard(batches):
        assert context.plan is not None
        seen.append(context.plan.lengths)
        assert batch["input_ids"].numel() == sum(seen[-1])
    assert seen == [[3, 2], [2], [2, 3], [2]]
    counts = context.planning
    assert (counts["made"], counts["made_ahead"], counts["hits"]) == (3, 3, 1)
    assert counts["ready"] + counts["waits"] == 4


class LoaderError(Exception):
    """Of a test's loader."""


@pytest.mark.parametrize("bad", ["loader", "batch", "plan"])
def test_errors_of_the_next_batch_come_in_its_turn(bad: str) -> None:
    def loader() -> Iterator[Any]:
        yield [[1, 2, 3]]
        if bad == "loader":
            raise LoaderError
        yield [] if bad == "plan" else {"input_ids": [[1, 2]], "colour": 1}

    context = evenspan.attach(llama())
    done = 0
    expected = LoaderError if bad == "loader" else evenspan.InvalidArgumentError
    with pytest.raises(expected):
        for batch in context.shard(loader()):
            context.loss(torch.zeros(1, batch["input_ids"].numel(), 11), batch)
            done += 1
    assert done == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strategy": "zigzg"}, "zigzg"), ({"strategy": 3}, "it is 3"), ({"token_slack": -1.0}, "-1"),
        ({"ranks_per_group": 3}, "groups of 3"), ({"ranks_per_node": -1}, "-1"), ({"profile": "nope"}, "nope"),
        ({"dtype": "bfloat8"}, "'bfloat8'"), ({"dtype": torch.int8}, "int8"), ({"timeout": "20"}, "it is '20'"),
        ({"timeout": float("inf")}, "it is inf"), ({"timeout": 0}, "it is 0"), ({"timeout": True}, "it is True"),
    ],
    ids=str,
)  # fmt: skip
def test_options_are_checked_by_attach(options: dict[str, Any], text: str) -> None:
    model = llama()
    with pytest.raises(evenspan.InvalidArgumentError, match=text):
        evenspan.attach(model, **options)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", ["bf16", "bfloat16", "float32", torch.float16])
def test_attach_takes_a_type_or_its_name(dtype: Any) -> None:
    evenspan.attach(llama(), dtype=dtype).detach()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("LlamaModel", "must run on input_ids"),
        ("LlamaForSequenceClassification", "logits for every token"),
        ("BartForConditionalGeneration", "a decoder alone"),
    ],
)
def test_models_of_another_task_are_refused(kind: str, text: str) -> None:
    of_bart = {"d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "decoder_ffn_dim": 16, "encoder_ffn_dim": 16}
    config = transformers.BartConfig(vocab_size=11, **of_bart) if "Bart" in kind else transformers.LlamaConfig(**SHAPE)
    with pytest.raises(evenspan.UnsupportedError, match=text):
        evenspan.attach(getattr(transformers, kind)(config))


def test_a_profile_simulates_the_model() -> None:
    with pytest.raises(evenspan.InvalidArgumentError, match="no attention times of head dimension 8 in f32"):
        evenspan.attach(llama(), strategy="auto", profile="h100-sxm")
    context = evenspan.attach(
        make("LlamaConfig", head_dim=128), strategy="auto", profile="h100-sxm", dtype=torch.bfloat16
    )
    next(context.shard([[[1, 2, 3]]]))
    assert context.plan is not None and context.plan.strategy != "auto"
