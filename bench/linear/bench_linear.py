"""Times linear attention on processes of this machine, side by side with other ways to compute it.

One document, decays fixed per head (Lightning Attention, what the peer computes), forward and backward, every process
with one thread. Systems: Evenspan with each transport; the same local kernel under an all-to-all of heads; LASP's own
code (PyPI `lasp`, the plain path) on the same local kernel, since its kernels need a GPU; and softmax attention in a
ring. All are checked against one process before they are timed, and timed by turns.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass

import evenspan
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

HEADS, DIM = 8, 64
TOLERANCE = 1e-4  # float32, sums of up to 64K terms that decay
RING_LIMIT = 16384  # tokens; softmax attention beyond takes minutes

Step = Callable[[list[torch.Tensor]], torch.Tensor]


@dataclass
class System:
    """A way to compute: plan's strategy for the shards, and forward on them."""

    name: str
    forward: Step
    longest: int = 1 << 30


def decays() -> torch.Tensor:
    """Return Lightning Attention's slopes as logarithms of decays."""
    return -torch.tensor([2 ** (-8 * (h + 1) / HEADS) for h in range(HEADS)])


def local_plan(tokens: int) -> evenspan.Plan:
    """Return the plan of one process for one document."""
    return evenspan.plan([tokens], 1, heads=1, head_dim=8, dtype=torch.float32)


class Local:
    """Evenspan's local kernel on this process alone."""

    def __init__(self) -> None:
        """Make a group of this process."""
        groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
        self.group = groups[dist.get_rank()]
        self.plans: dict[int, evenspan.Plan] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output and final state; tensors are [tokens, heads, dim]."""
        tokens = query.shape[0]
        plan = self.plans.setdefault(tokens, local_plan(tokens))
        return evenspan.linear_attention(
            query, key, value, gate=gate, plan=plan, group=self.group, scale=1.0, return_final_state=True
        )


def stand_in(local: Local) -> Callable[..., torch.Tensor]:
    """Return `lasp_naive` of the peer with the local kernel in place of its Triton kernels."""
    triton = types.ModuleType("triton")
    triton.jit = lambda f: f  # type: ignore[attr-defined]
    language = types.ModuleType("triton.language")
    language.constexpr = int  # type: ignore[attr-defined]
    triton.language = language  # type: ignore[attr-defined]
    sys.modules.update({"triton": triton, "triton.language": language})
    from lasp import initialize_lasp

    module = sys.modules["lasp.lasp_naive"]

    def rows(x: torch.Tensor) -> torch.Tensor:
        return x[0].transpose(0, 1)

    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, s: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        out, state = local(rows(q), rows(k), rows(v), -s.flatten())
        kv.copy_(_ahead(state, s))
        return out.transpose(0, 1)[None]

    def backward(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, s: torch.Tensor, do: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            out, _ = local(*(rows(x) for x in leaves), -s.flatten())
            dq, dk, dv = torch.autograd.grad(out, leaves, rows(do))
        n = q.shape[2]
        decay = torch.exp(-s.view(1, -1, 1, 1) * torch.arange(n).view(1, 1, -1, 1))
        return dq, dk, dv, None, (q * decay).transpose(2, 3) @ do

    module.lasp_forward, module.lasp_backward = forward, backward
    initialize_lasp(1, dist.get_world_size())
    return module.lasp_naive


def _ahead(state: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The peer's states are one decay ahead of the recurrence's."""
    return torch.exp(-s.view(1, -1, 1, 1)) * state


def systems(local: Local, lasp_naive: Callable[..., torch.Tensor], tokens: int) -> list[System]:
    """Return all ways; each takes this process's contiguous rows of query, key and value."""
    world = dist.get_world_size()
    gate = decays()
    plan = evenspan.plan([tokens], world, heads=HEADS, head_dim=DIM, dtype=torch.float32, strategy="all_gather")
    ring = evenspan.plan([tokens], world, heads=HEADS, head_dim=DIM, dtype=torch.float32, strategy="ring")

    def evenspan_with(transport: str) -> Step:
        return lambda x: evenspan.linear_attention(*x, gate=gate, plan=plan, transport=transport, scale=1.0)

    def heads_first(x: list[torch.Tensor]) -> torch.Tensor:
        own = HEADS // world
        q, k, v = (Transpose.apply(t, True) for t in x)
        return Transpose.apply(local(q, k, v, gate[dist.get_rank() * own :][:own])[0], False)

    def lasp(x: list[torch.Tensor]) -> torch.Tensor:
        q, k, v = (t.transpose(0, 1)[None].contiguous() for t in x)
        return lasp_naive(q, k, v, -gate.view(1, HEADS, 1, 1)[0])[0].transpose(0, 1)

    found = [System(f"evenspan {name}", evenspan_with(name)) for name in ("all_gather", "ring", "pipelined")]
    found.append(System("all-to-all of heads", heads_first))
    found.append(System("lasp (PyPI)", lasp))
    found.append(System("softmax ring", lambda x: evenspan.attention(*x, ring), RING_LIMIT))
    return found


class Transpose(torch.autograd.Function):
    """Tokens of all heads [n / P, H, d] to all tokens of some heads [n, H / P, d], and back."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, to_heads: bool) -> torch.Tensor:  # noqa: D102
        ctx.to_heads = to_heads  # type: ignore[attr-defined]
        world = dist.get_world_size()
        if to_heads:
            sent = x.view(x.shape[0], world, -1, x.shape[2]).transpose(0, 1).contiguous()
            got = torch.empty_like(sent)
            dist.all_to_all_single(got, sent)
            return got.flatten(0, 1)
        sent = x.view(world, -1, *x.shape[1:]).contiguous()
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent)
        return got.transpose(0, 1).flatten(1, 2).contiguous()

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: D102
        return Transpose.apply(grad.contiguous(), not ctx.to_heads), None  # type: ignore[attr-defined]


def inputs(tokens: int) -> list[torch.Tensor]:
    """Return query, key, value and the output's gradient of the whole document, the same on every process."""
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(tokens, HEADS, DIM, generator=generator) for _ in range(4)]


def step(system: System, shards: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return output and gradients of this process's rows."""
    leaves = [x.detach().requires_grad_() for x in shards[:3]]
    out = system.forward(leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, shards[3])]


def worst_error(system: System, shards: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Return the largest distance from one process's results, relative to their largest elements."""
    got = step(system, shards)
    error = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(got, expected, strict=True))
    everywhere = torch.tensor([error])
    dist.all_reduce(everywhere, op=dist.ReduceOp.MAX)
    return everywhere.item()


def timed(system: System, shards: list[torch.Tensor]) -> float:
    """Return the seconds of one step, from all processes' begin to the last one's end."""
    dist.barrier()
    start = time.perf_counter()
    step(system, shards)
    seconds = torch.tensor([time.perf_counter() - start])
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return seconds.item()


def measure(rank: int, world: int, port: int, sizes: list[int], repetitions: int, pipe: object) -> None:
    """Run on one process; rank 0 sends (tokens, {system: seconds or error}) for each size."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % len(os.sched_getaffinity(0))]})
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    local = Local()
    lasp_naive = stand_in(local)
    for tokens in sizes:
        whole = inputs(tokens)
        rows = slice(rank * tokens // world, (rank + 1) * tokens // world)
        leaves = [x.requires_grad_() for x in whole[:3]]
        out, _ = local(*leaves, decays())
        expected = [x[rows] for x in (out.detach(), *torch.autograd.grad(out, leaves, whole[3]))]
        shards = [x.detach()[rows] for x in whole]
        results: dict[str, list[float] | str] = {}
        running = []
        for system in systems(local, lasp_naive, tokens):
            if tokens > system.longest:
                continue
            if "softmax" not in system.name and (error := worst_error(system, shards, expected)) > TOLERANCE:
                results[system.name] = f"wrong by {error:.2g}"
                continue
            running.append(system)
        for repetition in range(repetitions + 1):
            for system in running:
                seconds = timed(system, shards)
                if repetition > 0:
                    results.setdefault(system.name, []).append(seconds)  # type: ignore[union-attr]
        if rank == 0:
            pipe.send((tokens, results))  # type: ignore[attr-defined]
    dist.barrier()
    os._exit(0)


def table(results: dict[int, dict[str, list[float] | str]]) -> str:
    """Return the least and the median milliseconds of every system and size."""
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = ["| tokens | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for tokens, row in results.items():
        cells = []
        for name in names:
            got = row.get(name, "")
            cells.append(got if isinstance(got, str) else f"{1e3 * min(got):.1f} ({1e3 * statistics.median(got):.1f})")
        lines.append(f"| {tokens:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def crossovers(results: dict[int, dict[str, list[float] | str]]) -> list[str]:
    """Say from which size on Evenspan's gather is ahead of each other system, by medians."""
    lines = []
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    for name in names[1:]:
        ahead = []
        for tokens, row in results.items():
            own, other = row.get(names[0]), row.get(name)
            if isinstance(own, list) and isinstance(other, list):
                ahead.append((tokens, statistics.median(other) / statistics.median(own)))
        first = next((i for i in range(len(ahead)) if all(r >= 1 for _, r in ahead[i:])), None)
        where = "at no size" if first is None else f"from {ahead[first][0]:,} tokens on"
        ratios = ", ".join(f"{ratio:.2f}" for _, ratio in ahead)
        lines.append(f"- {names[0]} ahead of {name} {where}; {name} took {ratios} times as long")
    return lines


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--tokens", default="512,1024,2048,4096,8192,16384,32768,65536", help="sizes, with commas")
    given = parser.parse_args()
    if HEADS % given.ranks:
        parser.error(f"--ranks divides {HEADS}, the heads, for the all-to-all; it is {given.ranks}")
    sizes = [int(word) for word in given.tokens.split(",")]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    port = 20000 + os.getpid() % 20000
    arguments = (given.ranks, port, sizes, given.repetitions, theirs)
    processes = [context.Process(target=measure, args=(rank, *arguments)) for rank in range(given.ranks)]
    for process in processes:
        process.start()
    results = {}
    for _ in sizes:
        while not ours.poll(1):
            if any(process.exitcode for process in processes):
                sys.exit("[bench-linear] a process ended early; its error is above")
        tokens, row = ours.recv()
        results[tokens] = row
        print(f"{tokens:,} tokens done", file=sys.stderr, flush=True)
    for process in processes:
        process.join()
    print(
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {given.ranks} processes of one thread"
    )
    print(f"{HEADS} heads, {DIM} x {DIM} states, float32, forward and backward: least (median) milliseconds\n")
    print(table(results), "", *crossovers(results), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
