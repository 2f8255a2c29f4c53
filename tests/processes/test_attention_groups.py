"""evenspan from Python over real Gloo processes: attention, shards, and the drop-in for Hugging Face models."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.environ.get("EVENSPAN_PYTHONPATH", str(ROOT / "build" / "python")))
evenspan = pytest.importorskip("evenspan", reason="the Python module is not built")

LIMIT_SECONDS = 120.0
LENGTHS = [7, 1, 19, 4]
HEADS, KV_HEADS, HEAD_DIM = 6, 2, 8

Body = Callable[[], Any]


def _main(rank: int, num_ranks: int, port: int, body: Body, pipe: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_ranks)
    try:
        outcome = (body(), "")
    except Exception as error:
        outcome = (None, f"{type(error).__name__}: {error}")
    pipe.send(outcome)
    pipe.close()
    os._exit(0)


def run_ranks(num_ranks: int, body: Body) -> list[tuple[Any, str]]:
    """Returns (result, error) of `body()` on every rank of a Gloo group."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = []
    for rank in range(num_ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_main, args=(rank, num_ranks, port, body, theirs))
        process.start()
        theirs.close()
        ranks.append((process, ours))
    outcomes = []
    for process, pipe in ranks:
        outcomes.append(pipe.recv() if pipe.poll(LIMIT_SECONDS) else (None, "hangs"))
        process.join(10)
        if process.is_alive():
            process.kill()
    return outcomes


def results(outcomes: list[tuple[Any, str]]) -> list[Any]:
    assert [error for _, error in outcomes] == [""] * len(outcomes)
    return [result for result, _ in outcomes]


# Attention.


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(HEADS, HEAD_DIM), (KV_HEADS, HEAD_DIM), (KV_HEADS, HEAD_DIM), (HEADS, HEAD_DIM)]
    return [torch.randn(sum(LENGTHS), *s, generator=generator, dtype=torch.float64) for s in shapes]


def reference() -> list[torch.Tensor]:
    """Output and gradients, every document alone."""
    *qkv, grad = inputs()
    q, k, v = (x.requires_grad_() for x in qkv)
    parts = []
    for a, b, c in zip(q.split(LENGTHS), k.split(LENGTHS), v.split(LENGTHS), strict=True):
        a, b, c = (x.transpose(0, 1) for x in (a, b, c))
        parts.append(F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=True).transpose(0, 1))
    out = torch.cat(parts)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), grad)]


def largest_errors(strategies: list[str]) -> list[float]:
    """Of output and gradients, put together again, for each strategy."""
    expected = reference()
    errors = []
    for strategy in strategies:
        plan = evenspan.plan(
            LENGTHS, dist.get_world_size(), heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM,
            strategy=strategy, dtype=torch.float64,
        )  # fmt: skip
        *qkv, grad = (evenspan.shard(x, plan, dist.group.WORLD) for x in inputs())
        q, k, v = (x.requires_grad_() for x in qkv)
        out = evenspan.attention(q, k, v, plan, dist.group.WORLD)
        local = [out, *torch.autograd.grad(out, (q, k, v), grad)]
        whole = [evenspan.unshard(x, plan, dist.group.WORLD) for x in local]
        errors.append(max((a - b).abs().max().item() for a, b in zip(whole, expected, strict=True)))
    return errors


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_attention_equals_every_document_alone(num_ranks: int) -> None:
    strategies = ["ring", "zigzag", "ulysses", "sequence_aware", "hierarchical"]
    for errors in results(run_ranks(num_ranks, partial(largest_errors, strategies))):
        assert max(errors) < 1e-12, dict(zip(strategies, errors, strict=True))


def bind_different_plans() -> None:
    lengths = [10, 5 + dist.get_rank()]
    plan = evenspan.plan(lengths, 2, heads=2, head_dim=8, dtype=torch.float32)
    evenspan.bind(plan)


def test_different_plans_are_an_error_on_all_ranks() -> None:
    for _, error in run_ranks(2, bind_different_plans):
        assert error.startswith("CommunicationError: ")
        assert "document lengths" in error


def bind_wrong_size() -> None:
    evenspan.bind(evenspan.plan([10], 3, heads=2, head_dim=8))


def test_a_group_of_another_size_is_refused() -> None:
    for _, error in run_ranks(2, bind_wrong_size):
        assert error.startswith("InvalidArgumentError: ")


# The drop-in.

BATCHES = [
    [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8], [9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3]],
    [[5, 11]],  # with three ranks, one has no token
    [[7]],  # no label at all
]


def make_model(implementation: str = "sdpa") -> Any:
    import transformers

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


def drop_in(strategy: str, average: str | None) -> list[tuple[float, float, bool]]:
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
        if average is None:
            context.reduce_gradients()
        else:  # what DDP does
            total /= dist.get_world_size()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
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


@pytest.mark.parametrize(
    ("num_ranks", "strategy", "average"),
    [(2, "sequence_aware", None), (3, "sequence_aware", None), (3, "hierarchical", None), (3, "sequence_aware", "ddp")],
)
def test_a_hugging_face_model_trains_as_on_one_rank(num_ranks: int, strategy: str, average: str | None) -> None:
    pytest.importorskip("transformers")
    for outcome in results(run_ranks(num_ranks, partial(drop_in, strategy, average))):
        assert outcome[0][0] > 1 and outcome[2][0] == 0
        for _, worst, same in outcome:
            assert worst < 2e-6  # transformers rounds norms and rotary angles to float32
            assert same
