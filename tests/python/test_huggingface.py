"""The drop-in for Hugging Face models in one process: what it refuses, and how it reads batches."""

from __future__ import annotations

from typing import Any

import evenspan
import pytest
import torch
import transformers
from evenspan.huggingface import attention_function


def llama(**options: Any) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, **options,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
    ],
)
def test_models_that_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(evenspan.UnsupportedError, match=text):
        evenspan.attach(llama(**options))


def test_batches_that_are_refused() -> None:
    context = evenspan.attach(llama())
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(evenspan.UnsupportedError, match="attention_mask"):
        next(context.shard([{"input_ids": ids, "attention_mask": torch.ones(1, 3)}]))
    for bad in (
        {"input_ids": ids, "documents": [2, 2]},
        {"input_ids": ids.expand(2, 3)},
        {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 3]])},
        {"input_ids": ids, "tokens": ids},
        {"labels": ids},
        [],
        ids,
    ):
        with pytest.raises(evenspan.InvalidArgumentError):
            next(context.shard([bad]))
    with pytest.raises(evenspan.InvalidArgumentError, match="average"):
        evenspan.attach(llama(), average="mean")


def test_the_attention_function_refuses() -> None:
    model = llama()
    with pytest.raises(evenspan.InvalidArgumentError, match=r"Context\.shard"):
        context = evenspan.attach(model)
        model(input_ids=torch.tensor([[1, 2]]))
    batch = next(context.shard([[[1, 2, 3]]]))
    module = torch.nn.Identity()
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 1, 3, 8)
    step = {"evenspan": batch["evenspan"]}
    for bad in (
        {"dropout": 0.1}, {"softcap": 30.0}, {"s_aux": torch.zeros(2)}, {"sliding_window": 2}, {"is_causal": False},
    ):  # fmt: skip
        with pytest.raises(evenspan.UnsupportedError):
            attention_function(module, q, k, k, None, **bad, **step)
    with pytest.raises(evenspan.UnsupportedError):
        attention_function(module, q, k, k, torch.zeros(1, 1, 3, 3), **step)
    narrow, _ = attention_function(module, q, k, k, None, sliding_window=3, **step)
    wide, _ = attention_function(module, q, k, k, None, **step)
    assert torch.equal(narrow, wide)


def test_labels_are_shifted_inside_documents() -> None:
    context = evenspan.attach(llama(), strategy="local")
    batch = next(context.shard([[[1, 2, 3], [], [4], [5, 6]]]))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["shift_labels"].tolist() == [[2, 3, -100, -100, 6, -100]]
    assert context.num_labels == 3
    assert context.plan.lengths == [3, 1, 2]
