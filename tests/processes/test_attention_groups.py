"""evenspan from Python over real Gloo processes: attention and shards."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import evenspan
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from groups import results, run_ranks

LENGTHS = [7, 1, 19, 4]
HEADS, KV_HEADS, HEAD_DIM = 6, 2, 8


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
    strategies = ["ring", "zigzag", "ulysses", "token_ring", "balanced_ring", "mesh"]
    strategies += ["disaggregated", "sequence_aware", "hierarchical", "mixed"]
    for errors in results(run_ranks(num_ranks, partial(largest_errors, strategies))):
        assert max(errors) < 1e-12, dict(zip(strategies, errors, strict=True))


def errors_of_groups(groups: list[list[int]]) -> float:
    """The same of documents on ranks that somebody else chose, and what the plan says of them."""
    plan = evenspan.plan(
        LENGTHS, dist.get_world_size(), heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, groups=groups, dtype="f64"
    )
    holders: list[set[int]] = [set() for _ in LENGTHS]
    for rank, spans in enumerate(plan.placement):
        for document, _, _ in spans:
            holders[document].add(rank)
    assert holders == [set(group) for group in groups]
    assert plan.strategy == "ulysses"
    *qkv, grad = (evenspan.shard(x, plan, dist.group.WORLD) for x in inputs())
    q, k, v = (x.requires_grad_() for x in qkv)
    out = evenspan.attention(q, k, v, plan, dist.group.WORLD)
    local = [out, *torch.autograd.grad(out, (q, k, v), grad)]
    whole = [evenspan.unshard(x, plan, dist.group.WORLD) for x in local]
    return max((a - b).abs().max().item() for a, b in zip(whole, reference(), strict=True))


@pytest.mark.parametrize("groups", [[[0, 1, 2], [1], [2, 0], [2]], [[2], [2], [1, 0], [0, 1]]])
def test_documents_lie_on_the_ranks_of_their_groups(groups: list[list[int]]) -> None:
    assert max(results(run_ranks(3, partial(errors_of_groups, groups)))) < 1e-12


WINDOW = 5


def two_layers(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attend: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Full attention, then a window over what it gave: rows never leave their rank between the two."""
    hidden = attend(0, q, k, v)
    return attend(1, hidden, hidden[:, ::3].contiguous(), v)


def reference_of_two_layers() -> list[torch.Tensor]:
    *qkv, grad = inputs()

    def attend(layer: int, *qkv: torch.Tensor) -> torch.Tensor:
        parts = []
        for part in zip(*(x.split(LENGTHS) for x in qkv), strict=True):
            distance = torch.arange(len(part[0]))[:, None] - torch.arange(len(part[0]))[None, :]
            mask = (distance >= 0) & (distance < (WINDOW if layer == 1 else len(part[0])))
            out = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part), attn_mask=mask, enable_gqa=True)
            parts.append(out.transpose(0, 1))
        return torch.cat(parts)

    leaves = [x.requires_grad_() for x in qkv]
    out = two_layers(*leaves, attend)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def largest_errors_of_two_layers(strategies: list[str]) -> list[float]:
    expected = reference_of_two_layers()
    errors = []
    for strategy in strategies:
        full = evenspan.plan(
            LENGTHS, dist.get_world_size(), heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM,
            strategy=strategy, dtype=torch.float64,
        )  # fmt: skip
        plans = (full, full.with_mask(f"window:{WINDOW}"))
        *qkv, grad = (evenspan.shard(x, full, dist.group.WORLD) for x in inputs())
        leaves = [x.requires_grad_() for x in qkv]
        out = two_layers(*leaves, lambda layer, *x, plans=plans: evenspan.attention(*x, plans[layer], dist.group.WORLD))
        local = [out, *torch.autograd.grad(out, leaves, grad)]
        whole = [evenspan.unshard(x, full, dist.group.WORLD) for x in local]
        errors.append(max((a - b).abs().max().item() for a, b in zip(whole, expected, strict=True)))
    return errors


def test_layers_with_other_masks_on_one_placement() -> None:
    strategies = ["ring", "ulysses", "token_ring", "disaggregated", "sequence_aware", "mixed"]
    for errors in results(run_ranks(3, partial(largest_errors_of_two_layers, strategies))):
        assert max(errors) < 1e-12, dict(zip(strategies, errors, strict=True))


def make_and_end_groups() -> None:
    """Let go of groups while threads of theirs let go of tensors."""
    for _ in range(100):
        group = dist.new_group([dist.get_rank()])
        evenspan.bind(evenspan.plan([3], 1, heads=1, kv_heads=1, head_dim=8), group)
        dist.all_reduce(torch.ones(1), group=group)
        dist.destroy_process_group(group)
        del group


def test_a_group_that_ends_does_not_hang() -> None:
    results(run_ranks(1, make_and_end_groups))


def policies_of_loops() -> list[int]:
    """Scheduling policies of Gloo's event loops, before and after evenspan uses the group."""
    loops = [task for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text() == "gloo_tcp_loop\n"]
    policies = [os.sched_getscheduler(int(loop.name)) for loop in loops]
    evenspan.bind(evenspan.plan([7, 3], dist.get_world_size(), heads=1, kv_heads=1, head_dim=8))
    return policies + [os.sched_getscheduler(int(loop.name)) for loop in loops]


def test_loops_of_gloo_do_not_preempt_those_who_hand_them_work() -> None:
    for policies in results(run_ranks(2, policies_of_loops)):
        assert policies == [os.SCHED_OTHER, os.SCHED_BATCH]


def bind_what_is_chosen() -> str:
    """Bind the plan of `auto`, which compares it with the other ranks' choices."""
    plan = evenspan.plan(
        [3000, 700, 90, 31], dist.get_world_size(), heads=4, kv_heads=2, head_dim=128, ranks_per_node=2,
        strategy="auto", profile="h100-sxm",
    )  # fmt: skip
    evenspan.bind(plan)
    return plan.strategy


def test_every_rank_chooses_the_same_strategy() -> None:
    assert len(set(results(run_ranks(4, bind_what_is_chosen)))) == 1


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


def leave_before_backward(compiled: bool) -> str:
    """Rank 1 has no backward pass; the others say what theirs raises."""
    plan = evenspan.plan([40], 2, heads=2, head_dim=8, dtype=torch.float32, strategy="ring")
    q, k, v = (torch.randn(plan.tokens[dist.get_rank()], 2, 8, requires_grad=True) for _ in range(3))
    function = torch.ops.evenspan.attention
    if compiled:
        function = torch.compile(function, backend="aot_eager", fullgraph=True)
    out = function(q, k, v, evenspan.bind(plan).handle)
    if dist.get_rank() == 1:
        raise ValueError("no backward here")
    try:
        out.sum().backward()
    except evenspan.CommunicationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("compiled", [False, True])
def test_errors_of_a_backward_pass_have_their_types(compiled: bool) -> None:
    (caught, error), _ = run_ranks(2, partial(leave_before_backward, compiled))
    assert not error
    assert 'failed in "attention backward' in caught and "with rank 1 broke" in caught
