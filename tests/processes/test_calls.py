"""Calls that a rank refuses, leaves out or makes in another order, over Gloo; each scenario has a group of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import evenspan
import torch
import torch.distributed as dist
from groups import results, run_ranks

PROMPT_SECONDS = 60.0  # of the default time-out of 300


def plans() -> list[evenspan.Plan]:
    """Two plans whose messages have the same sizes."""
    return [
        evenspan.plan([60, 20], 2, heads=2, head_dim=8, dtype="f32", strategy="zigzag", mask=mask)
        for mask in ("causal", "full")
    ]


def rows(plan: evenspan.Plan, group: dist.ProcessGroup) -> torch.Tensor:
    return evenspan.shard(torch.ones(80, 2, 8), plan, group)


def a_wrong_argument_everywhere(group: dist.ProcessGroup) -> None:
    plan, other = plans()
    x = rows(plan, group)
    wrong = (
        lambda: evenspan.attention(x.double(), x, x, plan, group),
        lambda: evenspan.attention(x[1:], x, x, plan, group),
        lambda: evenspan.attention(None, x, x, plan, group),  # type: ignore[arg-type]
        lambda: evenspan.linear_attention(x, x, x, gate=x[..., 0], plan=plan, group=group),
        lambda: evenspan.linear_attention(x, x, x, plan=other, group=group),
        lambda: evenspan.short_convolution(x[:, 0], x[:, 0], plan=plan, group=group),
        lambda: evenspan.unshard(x[1:], plan, group),
        lambda: evenspan.bind(evenspan.plan([80], 3, heads=2, head_dim=8, dtype="f32"), group),
    )
    for call in wrong:
        try:
            call()
            raise AssertionError("a wrong argument was accepted")
        except evenspan.InvalidArgumentError:
            pass
    assert torch.equal(evenspan.attention(x, x, x, plan, group), x)
    evenspan.linear_attention(x, x, x, plan=plan, group=group)


def a_wrong_argument_on_one_rank(group: dist.ProcessGroup) -> None:
    plan, _ = plans()
    x = rows(plan, group)
    evenspan.attention(x, x, x, plan, group)
    try:
        evenspan.attention(x.double() if dist.get_rank() == 1 else x, x, x, plan, group)
    except evenspan.InvalidArgumentError:
        evenspan.attention(x, x, x, plan, group)


def another_order(group: dist.ProcessGroup) -> None:
    both = plans()
    x = rows(both[0], group)
    for plan in both:
        evenspan.bind(plan, group)
    for plan in both if dist.get_rank() == 0 else reversed(both):
        evenspan.attention(x, x, x, plan, group)


def a_batch_less(group: dist.ProcessGroup) -> None:
    plan, _ = plans()
    x = rows(plan, group).requires_grad_()
    for _ in range(3 if dist.get_rank() == 0 else 2):
        evenspan.attention(x, x, x, plan, group).sum().backward()
    evenspan.unshard(x, plan, group)


def an_exception_everywhere(group: dist.ProcessGroup) -> None:
    """`attach` tells the others of an exception that leaves its block; here all leave it at the same place."""
    from evenspan._groups import communicator_of, tell_all

    tell_all(communicator_of(group), "the caller's code", ValueError("an empty batch"))
    plan, _ = plans()
    evenspan.unshard(rows(plan, group), plan, group)


def other_tokens(group: dist.ProcessGroup) -> None:
    from evenspan._groups import communicator_of

    communicator = communicator_of(group)
    comparison = {"operation": "step check", "things": "batches", "remedy": "give every rank the same batch"}
    communicator.compare([("tokens", 2**63 + 5), ("step", 3)], **comparison)
    before = communicator.call_hash
    assert 0 <= before < 2**63
    communicator.compare([("tokens", 2**63 + dist.get_rank()), ("step", 3)], **comparison)


SCENARIOS: list[tuple[Callable[[dist.ProcessGroup], None], str]] = [
    (a_wrong_argument_everywhere, ""),
    (a_wrong_argument_on_one_rank, 'rank 1 failed in "attention forward": [attention] query is Double'),
    (another_order, '"attention forward" of plan '),
    (a_batch_less, "all ranks make the same calls in the same order, but rank 0 made call "),
    (an_exception_everywhere, ""),
    (other_tokens, "[step check] ranks 0 and 1 hold different batches: they differ in tokens; give every rank"),
]


def run_all() -> list[tuple[str, float]]:
    heard = []
    for scenario, _ in SCENARIOS:
        group = dist.new_group([0, 1])
        start = time.monotonic()
        try:
            scenario(group)
            heard.append(("", time.monotonic() - start))
        except evenspan.CommunicationError as error:
            heard.append((str(error), time.monotonic() - start))
    return heard


def test_ranks_that_part_hear_why_and_others_go_on() -> None:
    for heard in results(run_ranks(2, run_all)):
        for (scenario, expected), (text, seconds) in zip(SCENARIOS, heard, strict=True):
            assert seconds < PROMPT_SECONDS, scenario
            assert expected in text and bool(expected) == bool(text), (scenario, text)
