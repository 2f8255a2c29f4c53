"""One rank of the benchmark: measures its kernels and links, then runs attention with every strategy in turn.

Started in the namespace of its host with the variables that torch.distributed's env:// reads, and two arguments: a JSON
file that says what to run, and the JSON file to write.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import evenspan
import torch
import torch.distributed as dist
from accounting import WAITING, counted_bytes
from network import INTERFACE
from prediction import profile, topology

SETTLE_SECONDS = 0.1  # for the last, delayed acknowledgements
NUM_HEADS = 2  # of kernels that are timed


def seconds_of(
    call: Callable[[], object], repetitions: int, clock: Callable[[], float] = time.monotonic
) -> list[float]:
    """Return the times of a call."""
    times = []
    for _ in range(repetitions):
        start = clock()
        call()
        times.append(clock() - start)
    return times


def repetitions_of(rows: int, keys: int) -> int:
    """Return how often a kernel is timed: small ones more often."""
    return max(5, min(50, (1 << 22) // (rows * keys)))


def rectangle_times(rows: int, keys: int, head_dim: int) -> tuple[float, float]:
    """Return the median processor seconds of one head, forward and backward, where all pairs count."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    query = torch.randn(1, NUM_HEADS, rows, head_dim)
    key, value = (torch.randn(1, NUM_HEADS, keys, head_dim) for _ in range(2))
    output, lse = flash(query, key, value)
    arguments = (output, query, key, value, output, lse, 0.0, False)
    forward = seconds_of(lambda: flash(query, key, value), repetitions_of(rows, keys), time.thread_time)
    backward = seconds_of(lambda: flash_backward(*arguments), repetitions_of(rows, keys), time.thread_time)
    return statistics.median(forward) / NUM_HEADS, statistics.median(backward) / NUM_HEADS


def square_times(rows: int, head_dim: int, alone: dist.ProcessGroup) -> tuple[float, float]:
    """Return the same of a causal square, which the executor cuts before it calls the kernel."""
    plan = evenspan.plan(
        [rows], 1, strategy="local", heads=NUM_HEADS, kv_heads=NUM_HEADS, head_dim=head_dim, dtype="f32"
    )
    query, key, value = (torch.randn(rows, NUM_HEADS, head_dim, requires_grad=True) for _ in range(3))
    forward, backward = [], []
    for _ in range(repetitions_of(rows, rows)):
        begin = time.thread_time()
        output = evenspan.attention(query, key, value, plan, alone)
        middle = time.thread_time()
        torch.autograd.grad(output, (query, key, value), output.detach())
        forward.append(middle - begin)
        backward.append(time.thread_time() - middle)
    return statistics.median(forward) / NUM_HEADS, statistics.median(backward) / NUM_HEADS


def kernel_times(points: list[int], head_dim: int) -> dict[str, dict[str, list]]:
    """Return the times by pass: of rows and keys, and of causal squares."""
    alone = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    table = [[rectangle_times(rows, keys, head_dim) for keys in points] for rows in points]
    squares = [square_times(rows, head_dim, alone) for rows in points]
    return {
        way: {
            "seconds": [[times[i] for times in row] for row in table],
            "square_seconds": [times[i] for times in squares],
        }
        for i, way in enumerate(("forward", "backward"))
    }


def exchange(peer: int, message: torch.Tensor) -> None:
    """Swap a message with a peer."""
    received = torch.empty_like(message)
    for work in (dist.isend(message, peer), dist.irecv(received, peer)):
        work.wait()


def link(peer: int) -> dict[str, float]:
    """Measure exchanges of all ranks with a peer at once: latency, bandwidth, and processor time of a message."""
    small, large = (torch.zeros(num_bytes, dtype=torch.uint8) for num_bytes in (64, 4 << 20))
    num_small = 20

    def measure(message: torch.Tensor, repetitions: int) -> tuple[list[float], float]:
        dist.barrier()
        used = time.process_time()
        seconds = seconds_of(lambda: exchange(peer, message), repetitions)
        return seconds, (time.process_time() - used) / repetitions

    of_small = [measure(small, num_small) for _ in range(7)]
    of_large = [measure(large, 1) for _ in range(7)]
    message = min(processor for _, processor in of_small)
    return {
        "latency_seconds": statistics.median(seconds for times, _ in of_small for seconds in times),
        "bytes_per_second": large.numel() / statistics.median(seconds for times, _ in of_large for seconds in times),
        "processor_seconds_per_message": message,
        "processor_seconds_per_byte": (min(processor for _, processor in of_large) - message) / large.numel(),
    }


def machine(points: list[int], head_dim: int) -> dict:
    """Measure what a profile needs, on all ranks at once: computing in processor time, since they may share cores."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    dist.barrier()
    source = torch.randn(2 << 20)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size()
    found: dict = kernel_times(points, head_dim)
    copies = seconds_of(lambda: target.copy_(source), 9, time.thread_time)
    found["copied_bytes_per_second"] = copied / statistics.median(copies)
    dist.barrier()
    return {**found, "inside": link(rank ^ 1), "between": link((rank + num_ranks // 2) % num_ranks)}


def main(job: dict, machine_files: tuple[Path, Path]) -> dict:
    """Return the measurements of this rank; `machine_files` become the profile and topology that it plans with."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    ranks_per_host, shape = job["ranks_per_host"], job["shape"]
    found: dict = {
        "machine": machine(job["points"], shape["head_dim"]),
        "repetitions": [],
    }
    # Every rank chooses for itself, from what all measured.
    machines: list[dict] = [{}] * num_ranks
    dist.all_gather_object(machines, found["machine"])
    for file, content in zip(machine_files, (profile(machines, job), topology(num_ranks, ranks_per_host)), strict=True):
        file.write_text(json.dumps(content))
    plans = {
        strategy: evenspan.plan(
            job["lengths"],
            num_ranks,
            strategy=strategy,
            dtype="f32",
            profile=machine_files[0],
            topology=machine_files[1],
            **shape,
        )
        for strategy in job["strategies"]
    }
    if rank == 0:
        found["most_tokens"] = {strategy: plan.metrics["tokens_max_over_mean"] for strategy, plan in plans.items()}
        found["plans"] = {strategy: plan.text() for strategy, plan in plans.items()}
        options = re.search(r"^options strategy=(\S+) .*ranks_per_group=(\d+)", found["plans"]["auto"], re.MULTILINE)
        found["auto"] = [options[1], int(options[2])]

    def attention(strategy: str) -> None:
        plan = plans[strategy]
        tokens = plan.tokens[rank]
        query, key, value = inputs[strategy]
        output = evenspan.attention(query, key, value, plan)
        output.backward(output.detach())
        assert query.grad is not None and query.grad.shape[0] == tokens

    inputs = {
        strategy: [
            torch.randn(plan.tokens[rank], heads, shape["head_dim"]).requires_grad_()
            for heads in (shape["heads"], shape["kv_heads"], shape["kv_heads"])
        ]
        for strategy, plan in plans.items()
    }
    for repetition in range(-1, job["repetitions"]):  # the first one warms up
        for strategy in [*job["strategies"], WAITING]:
            for tensor in inputs.get(strategy, []):
                tensor.grad = None
            dist.barrier()
            sent = counted_bytes(INTERFACE)
            dist.barrier()
            start = time.monotonic()  # one clock for all processes of the machine
            if strategy != WAITING:
                attention(strategy)
            end = time.monotonic()
            dist.barrier()
            time.sleep(SETTLE_SECONDS)
            sent = counted_bytes(INTERFACE) - sent
            if repetition >= 0:
                found["repetitions"].append({"strategy": strategy, "start": start, "end": end, "sent_bytes": sent})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(int(os.environ["RANK"]))
    dist.init_process_group("gloo")
    job_file, found_file = map(Path, sys.argv[1:])
    described = found_file.with_suffix(".profile"), found_file.with_suffix(".topology")
    found_file.write_text(json.dumps(main(json.loads(job_file.read_text()), described)))
    dist.barrier()
    os._exit(0)  # the peers' sockets may close first
