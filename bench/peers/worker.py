"""One rank: a process on a core of its own that runs what the harness asks for, one command at a time."""

from __future__ import annotations

import datetime
import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import evenspan_peers_kernel as kernel
import torch
import torch.distributed as dist
from batches import Batch, tensors
from evenspan import _evenspan
from evenspan._groups import communicator_of
from layouts import Layout
from reference import NAMES, error_sums
from systems import Attention, System, all_systems

SETTLE_SECONDS = 0.05  # for the last, delayed acknowledgements of a step
FREE = 1e21  # operations a second of token-wise layers, which no step here has
DIRECT, DIRECT_ALL = "direct on one rank", "direct on all ranks"


def sent_bytes() -> int:
    """Return what the loopback interface has sent so far: all messages of all ranks, headers included."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    raise RuntimeError("[worker] /proc/net/dev has no line for lo")


@dataclass
class Prepared:
    """A system with this rank's part of a batch."""

    attention: Attention
    layout: Layout
    inputs: list[torch.Tensor]  # query, key, value
    gradient: torch.Tensor

    def step(self) -> list[torch.Tensor]:
        """Run forward and backward; return output, dq, dk and dv."""
        output = self.attention(*self.inputs)
        return [output.detach(), *torch.autograd.grad(output, self.inputs, self.gradient)]


class Rank:
    """What a rank keeps between commands."""

    def __init__(self, rank: int, ranks: int) -> None:
        """Import the systems."""
        self.rank, self.ranks = rank, ranks
        self.systems, self.missing = all_systems()
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        self._batch: Batch | None = None
        self._whole: list[torch.Tensor] = []
        self._prepared: dict[str, Prepared] = {}
        self._llama: Any = None

    def listed(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return versions by system, and reasons by package that is missing."""
        return {name: system.version for name, system in self.systems.items()}, self.missing

    def profile(self, words: list[str], path: str) -> None:
        """Calibrate the machine with all ranks and write its profile, for a step that is attention alone."""
        command = _evenspan.CalibrateCommand(words)
        profile = json.loads(command.calibrate(communicator_of(None)).json)
        profile |= {"forward_flops_per_second": FREE, "backward_flops_per_second": FREE}
        if self.rank == 0:
            Path(path).write_text(json.dumps(profile))
        dist.barrier()

    def _take(self, batch: Batch) -> None:
        if batch != self._batch:
            self._batch, self._whole, self._prepared = batch, tensors(batch), {}

    def _prepare(self, batch: Batch, system: System) -> Prepared:
        layout = system.layout(batch)
        local = [layout.local(x, self.rank).to(self.device) for x in self._whole]
        inputs = [x.requires_grad_() for x in local[:3]]
        return Prepared(system.prepare(batch, layout, self.rank), layout, inputs, local[3])

    def check(self, batch: Batch, name: str, exact: str) -> dict[str, Any]:
        """Run two steps: the first one is compared with the exact results, the second one's bytes are counted."""
        self._take(batch)
        system = self.systems[name]
        reason = system.unsupported(batch)
        if reason is not None:
            return {"unsupported": reason}
        begin = time.perf_counter()
        prepared = self._prepare(batch, system)
        seconds = time.perf_counter() - begin
        kernel.reset_pairs()
        results = prepared.step()
        counted = kernel.pairs()[0]
        whole = torch.load(exact, mmap=True)
        rows = prepared.layout.rows[self.rank]
        sums = [error_sums(result.cpu(), x, rows) for result, x in zip(results, whole, strict=True)]
        self._prepared[name] = prepared
        pairs = system.pairs(batch)
        return {
            "errors": dict(zip(NAMES, sums, strict=True)),
            "pairs": counted if pairs is None else pairs[self.rank],
            "rows": rows.numel(),
            "prepare_seconds": seconds,
            "sent_bytes": self._count_bytes(prepared.step) - self._count_bytes(lambda: None),
        }

    def _count_bytes(self, step: Callable[[], object]) -> int:
        """Return the bytes that all ranks send in a step and the barriers around it."""
        dist.barrier()
        time.sleep(SETTLE_SECONDS)
        before = sent_bytes()
        dist.barrier()
        step()
        dist.barrier()
        time.sleep(SETTLE_SECONDS)
        return sent_bytes() - before

    def measure(
        self, batch: Batch, names: list[str], anchor: str, repetitions: int
    ) -> tuple[dict[str, list[tuple[int, float, float]]], list[tuple[float, float]]]:
        """Run every system once a repetition, in rotating order, and the anchor before the first and after each.

        Returns of each step of the others how many were before it, seconds, and processor seconds; and of the anchor's,
        one more than those of the others, seconds and processor seconds in the order of the run. The kernel called
        directly over all documents takes part twice: on rank 0 while the others wait, and on all.
        """
        self._take(batch)
        whole = [x.detach().to(self.device) for x in self._whole]
        lengths = list(batch.lengths)

        def direct() -> None:
            kernel.direct(lengths, *whole)

        steps: dict[str, Callable[[], object]] = {
            DIRECT: direct if self.rank == 0 else lambda: None,
            DIRECT_ALL: direct,
        }
        for name in names:
            if name not in self._prepared:
                self._prepared[name] = self._prepare(batch, self.systems[name])
            steps[name] = self._prepared[name].step
        order = [name for name in steps if name != anchor]
        times: dict[str, list[tuple[int, float, float]]] = {name: [] for name in order}
        self._time(steps[anchor])
        for name in order:
            self._time(steps[name])  # warms up
        beside = [self._time(steps[anchor])]
        for repetition in range(repetitions):
            start = repetition % len(order)
            for name in order[start:] + order[:start]:
                times[name].append((len(beside) - 1, *self._time(steps[name])))
                beside.append(self._time(steps[anchor]))
        return times, beside

    def llama(self, command: str, *arguments: object) -> Any:
        """Run a command of llama.Llama."""
        if self._llama is None:
            import llama  # only where it is asked for: it needs transformers

            self._llama = llama.Llama()
        return getattr(self._llama, command)(*arguments)

    def _time(self, step: Callable[[], object]) -> tuple[float, float]:
        dist.barrier()
        used, begin = time.process_time(), time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        dist.barrier()  # the processor also sends for others after its own step
        return seconds, time.process_time() - used


def serve(rank: int, ranks: int, backend: str, store: str, pipe: Connection) -> None:
    """Join the group, then answer commands until the pipe closes. An exception is an answer, and the last one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    limit = datetime.timedelta(seconds=120)
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=limit)
    state = Rank(rank, ranks)
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(state, command)(*arguments)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())[:300]
            pipe.send((False, f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"))
            return
        pipe.send((True, answer))
