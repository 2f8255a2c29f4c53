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
from accounting import counted_bytes
from network import INTERFACE
from prediction import profile

SETTLE_SECONDS = 0.1  # for the last, delayed acknowledgements


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


def kernel_times(points: list[int], head_dim: int) -> dict[str, list[list[float]]]:
    """Return the median processor seconds of one head by rows and keys, forward and backward."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    num_heads = 2
    table: dict[str, list[list[float]]] = {"forward": [], "backward": []}
    for rows in points:
        for times in table.values():
            times.append([])
        for keys in points:
            query = torch.randn(1, num_heads, rows, head_dim)
            key, value = (torch.randn(1, num_heads, keys, head_dim) for _ in range(2))
            output, lse = flash(query, key, value)
            arguments = (output, query, key, value, output, lse, 0.0, False)
            repetitions = max(5, min(50, (1 << 22) // (rows * keys)))
            forward = seconds_of(lambda q=query, k=key, v=value: flash(q, k, v), repetitions, time.thread_time)
            backward = seconds_of(lambda a=arguments: flash_backward(*a), repetitions, time.thread_time)
            table["forward"][-1].append(statistics.median(forward) / num_heads)
            table["backward"][-1].append(statistics.median(backward) / num_heads)
    return table


def exchange(peer: int, message: torch.Tensor) -> None:
    """Swap a message with a peer."""
    received = torch.empty_like(message)
    for work in (dist.isend(message, peer), dist.irecv(received, peer)):
        work.wait()


def link(peer: int) -> dict[str, float]:
    """Measure messages that all ranks swap with a peer at once: latency, bandwidth, and processor time of a byte."""
    small, large = (torch.zeros(num_bytes, dtype=torch.uint8) for num_bytes in (64, 4 << 20))
    latencies, seconds, processor = [], [], []
    for _ in range(7):
        dist.barrier()
        latencies += seconds_of(lambda: exchange(peer, small), 3)
        dist.barrier()
        used = time.process_time()
        seconds += seconds_of(lambda: exchange(peer, large), 1)
        processor.append(time.process_time() - used)
    return {
        "latency_seconds": statistics.median(latencies),
        "bytes_per_second": large.numel() / statistics.median(seconds),
        "processor_seconds_per_byte": min(processor) / large.numel(),
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


def main(job: dict, measured: str) -> dict:
    """Return the measurements of this rank; `measured` is where it writes the profile that `auto` plans with."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    ranks_per_host, shape = job["ranks_per_host"], job["shape"]
    found: dict = {
        "machine": machine(job["points"], shape["head_dim"]),
        "repetitions": [],
    }
    # Every rank chooses for itself, from what all measured.
    machines: list[dict] = [{}] * num_ranks
    dist.all_gather_object(machines, found["machine"])
    Path(measured).write_text(json.dumps(profile(machines, job)))
    plans = {
        strategy: evenspan.plan(
            job["lengths"],
            num_ranks,
            ranks_per_node=ranks_per_host,
            strategy=strategy,
            dtype="f32",
            profile=measured,
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
        for strategy in [*job["strategies"], ""]:  # the empty one only waits, for the bytes of waiting
            for tensor in inputs.get(strategy, []):
                tensor.grad = None
            dist.barrier()
            sent = counted_bytes(INTERFACE)
            dist.barrier()
            start = time.monotonic()  # one clock for all processes of the machine
            if strategy:
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
    result = main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2] + ".profile")
    Path(sys.argv[2]).write_text(json.dumps(result))
    dist.barrier()
    os._exit(0)  # the peers' sockets may close first
