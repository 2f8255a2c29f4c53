"""Linear attention and short convolutions from Python over real Gloo processes."""

from __future__ import annotations

from functools import partial

import evenspan
import pytest
import torch
import torch.distributed as dist
from evenspan import _evenspan
from groups import results, run_ranks

LENGTHS = [70, 1, 19, 4]
HEADS, KEY_DIM, VALUE_DIM = 3, 4, 5


def recurrence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor | None,
    beta: torch.Tensor | None,
    scale: float,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token."""
    outputs = []
    for t in range(query.shape[0]):
        if gate is not None:
            state = state * gate[t].exp().reshape(HEADS, -1, 1)
        k, v = key[t].unsqueeze(2), value[t].unsqueeze(1)
        if beta is not None:
            v = beta[t].view(HEADS, 1, 1) * (v - k.transpose(1, 2) @ state)
        state = state + k * v
        outputs.append(scale * (query[t].unsqueeze(1) @ state).squeeze(1))
    return torch.stack(outputs), state


def inputs() -> list[torch.Tensor]:
    """Query, key, value, gate, beta and the output's gradient."""
    generator = torch.Generator().manual_seed(3)
    n = sum(LENGTHS)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    key = torch.nn.functional.normalize(normal(n, HEADS, KEY_DIM), dim=-1)
    gate = torch.nn.functional.logsigmoid(normal(n, HEADS, KEY_DIM))
    beta = normal(n, HEADS).sigmoid()
    value, grad = normal(n, HEADS, VALUE_DIM), normal(n, HEADS, VALUE_DIM)
    return [normal(n, HEADS, KEY_DIM), key, value, gate, beta, grad]


def reference() -> list[torch.Tensor]:
    """Output and gradients, every document alone."""
    *operands, grad = inputs()
    leaves = [x.requires_grad_() for x in operands]
    zero = torch.zeros(HEADS, KEY_DIM, VALUE_DIM, dtype=torch.float64)
    parts = []
    for q, k, v, g, b in zip(*(x.split(LENGTHS) for x in leaves), strict=True):
        parts.append(recurrence(q, k, v, g, b, KEY_DIM**-0.5, zero)[0])
    out = torch.cat(parts)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def make_plan(strategy: str = "zigzag") -> evenspan.Plan:
    return evenspan.plan(
        LENGTHS, dist.get_world_size(), heads=2, head_dim=8, strategy=strategy, dtype=torch.float64, ranks_per_node=2
    )


def largest_errors(own_kernel: bool) -> list[float]:
    """Of output and gradients, put together again, for each transport."""
    expected = reference()
    plan = make_plan()
    errors = []
    for transport in _evenspan.transports():
        *operands, grad = (evenspan.shard(x, plan, dist.group.WORLD) for x in inputs())
        q, k, v, g, b = (x.requires_grad_() for x in operands)
        out = evenspan.linear_attention(
            q, k, v, gate=g, beta=b, plan=plan, transport=transport, kernel=recurrence if own_kernel else None
        )
        local = [out, *torch.autograd.grad(out, (q, k, v, g, b), grad)]
        whole = [evenspan.unshard(x, plan, dist.group.WORLD) for x in local]
        errors.append(max((a - b).abs().max().item() for a, b in zip(whole, expected, strict=True)))
    return errors


@pytest.mark.parametrize("own_kernel", [False, True])
def test_linear_attention_equals_every_document_alone(own_kernel: bool) -> None:
    for errors in results(run_ranks(3, partial(largest_errors, own_kernel))):
        assert max(errors) < 1e-12, dict(zip(_evenspan.transports(), errors, strict=True))


def continued() -> float:
    """The distance of two batches that hand on their states from one that holds all, in outputs and gradients."""
    q, k, v, g, b, _ = inputs()
    long = slice(0, LENGTHS[0])
    world = dist.get_world_size()

    def run(parts: list[slice]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        leaves = [x[long].clone().requires_grad_() for x in (q, k, v, g, b)]
        state, outputs = torch.zeros(1, HEADS, KEY_DIM, VALUE_DIM, dtype=torch.float64), []
        for part in parts:
            plan = evenspan.plan(
                [part.stop - part.start], world, heads=2, head_dim=8, strategy="ring", dtype=torch.float64
            )
            local = [evenspan.shard(x[part], plan, dist.group.WORLD) for x in leaves]
            out, final = evenspan.linear_attention(
                *local[:3], gate=local[3], beta=local[4], initial_state=state, plan=plan, return_final_state=True
            )
            state = _evenspan.Communicator.all_reduce(communicator(), final.detach())
            outputs.append((evenspan.unshard(out, plan, dist.group.WORLD), final.sum()))
        outputs[-1][1].backward()
        return torch.cat([out for out, _ in outputs]), [state]

    whole, whole_state = run([slice(0, 70)])
    halves, halves_state = run([slice(0, 33), slice(33, 70)])
    return max((whole - halves).abs().max().item(), (whole_state[0] - halves_state[0]).abs().max().item())


def communicator() -> _evenspan.Communicator:
    from evenspan._groups import communicator_of

    return communicator_of(dist.group.WORLD)


def test_a_document_goes_on_in_the_next_batch() -> None:
    for error in results(run_ranks(2, continued)):
        assert error < 1e-12


def convolved() -> list[float]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(sum(LENGTHS), 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    errors = []
    for strategy in ["ring", "zigzag", "sequence_aware"]:
        plan = make_plan(strategy)
        expected = torch.cat(
            [
                torch.nn.functional.conv1d(d.T, weight.unsqueeze(1), padding=3, groups=6)[:, : d.shape[0]].T
                for d in x.split(LENGTHS)
            ]
        )
        local = evenspan.short_convolution(evenspan.shard(x, plan, dist.group.WORLD), weight, plan=plan)
        errors.append((evenspan.unshard(local, plan, dist.group.WORLD) - expected).abs().max().item())
    return errors


def test_a_short_convolution_respects_documents() -> None:
    for errors in results(run_ranks(3, convolved)):
        assert max(errors) < 1e-12


def error_of_a_wrong_gate() -> str:
    plan = make_plan()
    q, k, v, g, b, _ = (evenspan.shard(x, plan, dist.group.WORLD) for x in inputs())
    if dist.get_rank() == 1:
        g = g + 100
    try:
        evenspan.linear_attention(q, k, v, gate=g, beta=b, plan=plan)
    except evenspan.Error as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def test_a_wrong_gate_on_one_rank_is_an_error_on_all() -> None:
    errors = results(run_ranks(3, error_of_a_wrong_gate))
    assert errors[1].startswith("InvalidArgumentError: [linear_attention] gate is "), errors
    for other in (errors[0], errors[2]):
        assert "rank 1 failed" in other and "gates are logarithms of decays" in other
