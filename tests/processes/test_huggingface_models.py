"""Attached models of many kinds over real Gloo processes: what attach proves on all ranks, types, recomputation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import evenspan
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from groups import results, run_ranks
from torch.distributed.fsdp import fully_shard

DOCUMENTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2], [8], [3, 8, 4, 6, 2, 6], [4, 3]]


SOME = {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 6}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 2, "experts_implementation": "eager"}
WINDOWED = {  # windows shorter than the longest document, than all but the shortest, and longer than all
    "all layers": ("MistralConfig", {"sliding_window": 5}),
    "some layers": ("Gemma3TextConfig", {"sliding_window": 2, **SOME}),
    "by the mask alone": ("PhimoeConfig", {"sliding_window": 5, **EXPERTS}),
    "no document is longer": ("MistralConfig", {"sliding_window": 17}),
    "one token": ("Gemma3TextConfig", {"sliding_window": 1, **SOME}),
}


def make(config: str = "LlamaConfig", dtype: torch.dtype = torch.float64, seed: int = 5, **more: Any) -> Any:
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 23, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "pad_token_id": 0,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
    }  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**sizes | more)).to(dtype)


def alone(model: Any) -> float:
    """Leave the gradients of the mean loss, every document alone, in the model; the loss."""
    labels = sum(len(document) - 1 for document in DOCUMENTS)
    total = 0.0
    for document in DOCUMENTS:
        ids = torch.tensor([document])
        logits = model(input_ids=ids, use_cache=False).logits[0]
        loss = (
            F.cross_entropy(
                logits[:-1].to(torch.promote_types(logits.dtype, torch.float32)), ids[0, 1:], reduction="sum"
            )
            / labels
        )
        loss.backward()
        total += loss.item()
    return total


def trained(model: Any, context: Any, run: Any = None) -> float:
    """Leave the gradients of one step in the model; the loss."""
    (batch,) = context.shard([DOCUMENTS])
    context.loss((model if run is None else run)(**batch)).backward()
    context.reduce_gradients()
    return context.mean_loss()


def worst(model: Any, other: Any) -> float:
    """The largest difference of a gradient relative to its size, which can be 0 where a window is one token."""
    return max(
        ((a.grad - b.grad).norm() / b.grad.norm().clamp_min(1e-6)).item()
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def other_weights() -> None:
    evenspan.attach(make(seed=dist.get_rank()), dist.group.WORLD)


def a_refusal_on_one_rank() -> None:
    model = make()
    if dist.get_rank() == 1:
        model.model.layers[0].self_attn.attention_dropout = 0.5
    evenspan.attach(model, dist.group.WORLD)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (other_weights, ["InvalidArgumentError: [attach] weights must be the same on every rank"] * 2),
        (a_refusal_on_one_rank, ["UnsupportedError: [attach] the model must be the same", "dropout=0.5"]),
    ],
)
def test_ranks_refuse_a_model_together(body: Callable[[], None], texts: list[str]) -> None:
    for (_, error), text in zip(run_ranks(2, body), texts, strict=True):
        assert text in error


def kinds_of_training() -> dict[str, float]:
    """How far gradients are from those of documents alone, for each way to train."""
    found = {}
    expected = make()
    alone(expected)
    for reentrant in (False, True):
        model = make().train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        trained(model, evenspan.attach(model, dist.group.WORLD))
        found[f"checkpointing, reentrant={reentrant}"] = worst(model, expected)
    tied, expected_tied = make(tie_word_embeddings=True), make(tie_word_embeddings=True)
    alone(expected_tied)
    trained(tied, evenspan.attach(tied, dist.group.WORLD))
    found["tied weights"] = worst(tied, expected_tied)
    model = make()
    wrapper = Adapter(model)
    trained(wrapper, evenspan.attach(wrapper, dist.group.WORLD))
    found["an adapter around the model"] = worst(model, expected)
    config, more = WINDOWED["some layers"]
    compiled, expected_windows = make(config, **more), make(config, **more)
    alone(expected_windows)
    context = evenspan.attach(compiled, dist.group.WORLD)
    trained(compiled, context, torch.compile(compiled, backend="eager", fullgraph=True))
    found["torch.compile"] = worst(compiled, expected_windows)
    return found


class Adapter(torch.nn.Module):
    """What wraps a base model and hands everything on to it, as PEFT's models do."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base_model = base

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model, name)

    def forward(self, **batch: Any) -> Any:
        return self.base_model(**batch)


def test_models_train_as_on_one_rank_in_every_way() -> None:
    for found in results(run_ranks(2, kinds_of_training)):
        assert len(found) == 5
        for way, error in found.items():
            assert error < 1e-5, way  # norms and angles are float32


def under_autocast() -> tuple[float, float, float, list[str]]:
    """Loss of two steps under autocast and that of sdpa, the gradients' difference, and the plans' types."""
    expected, model = make(dtype=torch.float32), make(dtype=torch.float32)
    context = evenspan.attach(model, dist.group.WORLD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        right = alone(expected)
    losses, plans = [], []
    for batch in context.shard([DOCUMENTS, DOCUMENTS]):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = context.loss(model(**batch))
        loss.backward()
        context.reduce_gradients()
        losses.append(context.mean_loss())
        plans.append(context.plan.text().split("element=")[1].split()[0])
    return *(abs(loss - right) / right for loss in losses), worst(model, expected), plans


def test_autocast_trains_as_with_sdpa() -> None:
    """float32 weights whose rotary embeddings give float32 queries and keys beside bfloat16 values."""
    for first, second, gradients, plans in results(run_ranks(2, under_autocast)):
        assert plans == ["f32", "bf16"]
        assert max(first, second) < 2e-2  # bfloat16 has steps of 2^-8
        assert gradients < 0.2


def sharded() -> tuple[float, bool]:
    """The loss difference of a model in fully_shard, and whether its parameters are sharded after attach."""
    expected = make()
    right = alone(expected)
    model = make()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    context = evenspan.attach(model, dist.group.WORLD)
    shards = all(isinstance(p, torch.distributed.tensor.DTensor) for p in model.parameters())
    loss = trained(model, context)
    return abs(loss - right), shards


def test_the_proof_leaves_a_sharded_model_sharded() -> None:
    for difference, shards in results(run_ranks(2, sharded)):
        assert difference < 1e-6 and shards


def windowed() -> dict[str, tuple[float, int]]:
    """How far gradients of models with windows are from those of documents alone; the plans of a batch."""
    found = {}
    for name, (config, more) in WINDOWED.items():
        expected, model = make(config, **more), make(config, **more)
        right = alone(expected)
        context = evenspan.attach(model, dist.group.WORLD, strategy="sequence_aware")
        loss = trained(model, context)
        assert abs(loss - right) < 1e-6, name
        plans = context._plans.plans([len(document) for document in DOCUMENTS])
        found[name] = worst(model, expected), len(set(map(id, plans.values())))
    return found


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_windows_shorter_and_longer_than_documents(num_ranks: int) -> None:
    for found in results(run_ranks(num_ranks, windowed)):
        assert {name: plans for name, (_, plans) in found.items()} == {
            "all layers": 1, "some layers": 2, "by the mask alone": 1, "no document is longer": 1, "one token": 2,
        }  # fmt: skip
        for name, (error, _) in found.items():
            assert error < 1e-5, name  # norms and angles are float32
