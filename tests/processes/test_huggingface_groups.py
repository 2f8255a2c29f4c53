"""The drop-in for Hugging Face models over real Gloo processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import evenspan
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from groups import results, run_ranks

BATCHES = [
    [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8], [9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3]],
    [[5, 11]],  # with three ranks, one has no token
    [[7]],  # no label at all
]


def make_model(implementation: str = "sdpa") -> Any:
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation).double()


def one_process(batch: list[list[int]]) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of a batch, every document alone."""
    model = make_model()
    labels = sum(len(document) - 1 for document in batch)
    loss = torch.zeros((), dtype=torch.float64)
    for document in batch:
        ids = torch.tensor([document])
        logits = model(input_ids=ids).logits[0]
        loss = loss + F.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum") / max(labels, 1)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


def as_flattened(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    """The batch as transformers' DataCollatorWithFlattening gives it."""
    ids = torch.tensor([[token for document in batch for token in document]])
    labels = ids.clone()
    starts = torch.tensor([0, *(len(document) for document in batch)]).cumsum(0)
    labels[0, starts[:-1]] = -100
    positions = torch.cat([torch.arange(len(document)) for document in batch])[None]
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def with_bounds(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    starts = torch.tensor([0, *(len(document) for document in batch)]).cumsum(0).int()
    return {"input_ids": torch.tensor([[token for document in batch for token in document]]), "cu_seq_lens_q": starts}


def drop_in(strategy: str, average: bool) -> list[tuple[float, float, bool]]:
    """(loss, largest difference from one process, same gradient bits as rank 0) for each batch."""
    outcome = []
    model = make_model()
    context = evenspan.attach(model, dist.group.WORLD, strategy=strategy, average=average)
    forms = [lambda b: b, as_flattened, with_bounds]
    loader = [form(batch) for form, batch in zip(forms, BATCHES, strict=True)]
    for batch, original in zip(context.shard(loader), BATCHES, strict=True):
        model.zero_grad()
        loss = context.loss(model(**batch))
        loss.backward()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if average:  # what a wrapper that evenspan does not know does
            total /= dist.get_world_size()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
        context.reduce_gradients()
        expected_loss, expected = one_process(original)
        worst = abs(total.item() - expected_loss)
        same = True
        for p, e in zip(model.parameters(), expected, strict=True):
            worst = max(worst, (p.grad - e).abs().max().item())
            first = p.grad.clone()
            dist.broadcast(first, 0)
            same = same and torch.equal(first, p.grad)
        outcome.append((total.item(), worst, same))
    return outcome


def in_micro_batches(profile: str) -> tuple[int, float]:
    """How many micro-batches a step of all documents has, and its largest difference from one process."""
    model = make_model()
    context = evenspan.attach(model, dist.group.WORLD, profile=profile)
    count = 0
    for batch in context.shard(BATCHES, accumulate=3, micro_batch_tokens=18):
        count += 1
        context.loss(model(**batch)).backward()
    context.reduce_gradients()
    expected_loss, expected = one_process([document for batch in BATCHES for document in batch])
    worst = abs(context.mean_loss() - expected_loss)
    for p, e in zip(model.parameters(), expected, strict=True):
        worst = max(worst, (p.grad - e).abs().max().item())
    return count, worst


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_micro_batches_of_a_step_train_as_on_one_rank(num_ranks: int, write_profile: Callable[..., Path]) -> None:
    profile = write_profile(6, "f64")
    for count, worst in results(run_ranks(num_ranks, partial(in_micro_batches, str(profile)))):
        assert count >= 2
        assert worst < 2e-6  # transformers rounds norms and rotary angles to float32


@pytest.mark.parametrize(
    ("num_ranks", "strategy", "average"),
    [(2, "sequence_aware", False), (3, "sequence_aware", False), (3, "hierarchical", False), (3, "ring", True)],
)
def test_a_hugging_face_model_trains_as_on_one_rank(num_ranks: int, strategy: str, average: bool) -> None:
    for outcome in results(run_ranks(num_ranks, partial(drop_in, strategy, average))):
        assert outcome[0][0] > 1 and outcome[2][0] == 0
        for _, worst, same in outcome:
            assert worst < 2e-6  # transformers rounds norms and rotary angles to float32
            assert same
