"""How time grows with the number of documents: Markdown tables on standard output.

Batches of 4,000, 16,000 and 64,000 documents of 4 tokens, and 16 documents of 4,000 tokens, which are as many tokens as
16,000 of 4. Measured are planning of every strategy, and binding (each rank's own program), linear attention under each
kind of gate, short convolutions and softmax attention, forward and backward, on one rank and on processes of this
machine. All times are processor time of the slowest rank, one thread each, the least of the repetitions: other work on
the machine counts little. All is measured in memory that the allocator keeps, unless --fresh-memory: by default
glibc gives tensors of over 32 MB back to the system, so that large batches pay for all their pages in every step and
small ones do not. `slope` is that of the logarithms between 4,000 and 64,000 documents, `ratio` the time of 16,000
documents of 4 tokens over that of 16 of 4,000.

Run: python bench/documents_report.py [--ranks 2,8] [--process-ranks 2] [--repeat 3] [--only planning,one,processes]
    [--fresh-memory]
"""

import argparse
import ctypes
import math
import os
import tempfile
import time
from collections.abc import Callable

import evenspan
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

STRATEGIES = (
    "local", "ring", "zigzag", "striped", "all_gather", "zigzag_all_gather", "ulysses", "usp", "token_ring",
    "disaggregated", "sequence_aware", "hierarchical", "mixed", "auto",
)  # fmt: skip
TRANSPORTS = ("ring", "all_gather", "pipelined", "logarithmic", "two_level")
GATES = ("none", "head", "scalar", "diagonal", "delta")
FEW_LONG = [4000] * 16
COUNTS = (4000, 16000, 64000)
BATCHES = [[4] * count for count in COUNTS] + [FEW_LONG]
HEADS, DIM, CHANNELS, WIDTH = 4, 64, 256, 4
STATE_DIM = 16  # between processes, where every document's state may travel

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>

Times = dict[str, float]


def keep_memory() -> None:
    """Make the allocator of this process keep memory of any size for later tensors."""
    libc = ctypes.CDLL(None)
    if libc.mallopt(M_MMAP_MAX, 0) != 1 or libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1) != 1:
        raise RuntimeError("[documents_report] the allocator takes no options; measure with --fresh-memory")


def clocked(body: Callable[[], object]) -> tuple[float, object]:
    """Return the processor time that `body` takes, and what it returns."""
    start = time.process_time()
    result = body()
    return time.process_time() - start, result


def least(runs: list[Times]) -> Times:
    """Return the least time of each step."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def planned(lengths: list[int], ranks: int, strategy: str) -> Times:
    """Time planning; `auto` simulates a profile's machine."""
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "dtype": torch.bfloat16}
    options = {"profile": "h100-sxm"} if strategy == "auto" else {}
    body = lambda: evenspan.plan(lengths, ranks, strategy=strategy, **shape, **options)  # noqa: E731
    return {"planning": clocked(body)[0]}


def operands(rows: int, gate: str, dim: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Return query, key and value, and the arguments of the gate."""
    query, key, value = (torch.randn(rows, HEADS, dim) for _ in range(3))
    key = torch.nn.functional.normalize(key, dim=-1)
    named = {}
    if gate == "head":
        named["gate"] = torch.full((HEADS,), -0.03)
    elif gate in ("scalar", "delta"):
        named["gate"] = torch.rand(rows, HEADS) * -0.1
    elif gate == "diagonal":
        named["gate"] = torch.rand(rows, HEADS, dim) * -0.1
    if gate == "delta":
        named["beta"] = torch.rand(rows, HEADS)
    for tensor in (query, key, value, *named.values()):
        tensor.requires_grad_()
    return [query, key, value], named


def passes(forward: Callable[[], torch.Tensor]) -> Times:
    """Time forward and backward."""
    forward_seconds, out = clocked(forward)
    gradient = torch.ones_like(out)
    return {"forward": forward_seconds, "backward": clocked(lambda: out.backward(gradient))[0]}


def layer(kind: str, plan: evenspan.Plan, rows: int, dim: int, transport: str = "all_gather") -> Times:
    """Time one layer on this rank's rows."""
    if kind == "convolution":
        x, weight = torch.randn(rows, CHANNELS, requires_grad=True), torch.randn(CHANNELS, WIDTH, requires_grad=True)
        return passes(lambda: evenspan.short_convolution(x, weight, plan=plan))
    query_key_value, named = operands(rows, "none" if kind == "softmax" else kind, dim)
    if kind == "softmax":
        return passes(lambda: evenspan.attention(*query_key_value, plan))
    return passes(lambda: evenspan.linear_attention(*query_key_value, plan=plan, transport=transport, **named))


def on_one_rank(kind: str, lengths: list[int], repeat: int) -> Times:
    """Time a layer without any transport."""
    plan = evenspan.plan(lengths, 1, heads=HEADS, head_dim=DIM, dtype=torch.float32, strategy="local")
    evenspan.bind(plan)
    return least([layer(kind, plan, sum(lengths), DIM) for _ in range(repeat + 1)])


def rank_body(
    rank: int, ranks: int, store: str, cases: list[tuple[str, str, str]], repeat: int, fresh: bool, pipe: object
) -> None:
    """Run all cases as one rank of a group; the times of each case and batch go into the pipe."""
    if not fresh:
        keep_memory()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    results: dict[tuple[tuple[str, str, str], int], Times] = {}
    for case in cases:
        strategy, kind, transport = case
        for b, lengths in enumerate(BATCHES):
            plan = evenspan.plan(
                lengths, ranks, heads=HEADS, head_dim=STATE_DIM, dtype=torch.float32, strategy=strategy
            )
            if kind == "binding":
                results[case, b] = {"binding": clocked(lambda plan=plan: evenspan.bind(plan))[0]}
                continue
            evenspan.bind(plan)
            runs = [layer(kind, plan, plan.tokens[rank], STATE_DIM, transport) for _ in range(repeat + 1)]
            results[case, b] = least(runs)
    pipe.send(results)  # type: ignore[attr-defined]
    dist.barrier()
    dist.destroy_process_group()


def on_processes(ranks: int, cases: list[tuple[str, str, str]], repeat: int, fresh: bool) -> dict:
    """Return the slowest rank's times of each case and batch."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(ranks):
            receive, send = context.Pipe(duplex=False)
            arguments = (rank, ranks, os.path.join(folder, "store"), cases, repeat, fresh, send)
            process = context.Process(target=rank_body, args=arguments)
            process.start()
            send.close()
            started.append((process, receive))
        of_ranks = [receive.recv() for _, receive in started]
        for process, _ in started:
            process.join()
    return {
        key: {name: max(results[key][name] for results in of_ranks) for name in times}
        for key, times in of_ranks[0].items()
    }


def print_header(title: str) -> None:
    """Print the head of a table."""
    print(f"\n### {title}\n")
    print("| processor ms | " + " | ".join(f"{count:,} of 4" for count in COUNTS) + " | 16 of 4,000 | slope | ratio |")
    print("|---|---|---|---|---|---|---|")


def print_rows(name: str, by_batch: list[Times]) -> None:
    """Print a row for each step."""
    for step in by_batch[0]:
        seconds = [times[step] for times in by_batch]
        slope = math.log(seconds[2] / seconds[0]) / math.log(COUNTS[2] / COUNTS[0])
        cells = " | ".join(f"{1e3 * s:.1f}" for s in seconds)
        print(f"| {name}, {step} | {cells} | {slope:.2f} | {seconds[1] / seconds[3]:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,8", help="of planning")
    parser.add_argument("--process-ranks", default="2", help="of layers between processes")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="planning,one,processes")
    parser.add_argument("--fresh-memory", action="store_true", help="leave the allocator as it is")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    torch.set_num_threads(1)
    if not arguments.fresh_memory:
        keep_memory()
    if "planning" in parts:
        for ranks in map(int, arguments.ranks.split(",")):
            print_header(f"Planning for {ranks} ranks")
            for strategy in STRATEGIES:
                repeat = 1 if strategy == "auto" else arguments.repeat
                times = [least([planned(batch, ranks, strategy) for _ in range(repeat)]) for batch in BATCHES]
                print_rows(strategy, times)
    if "one" in parts:
        print_header(f"Layers on one rank: {HEADS} heads of {DIM}, {CHANNELS} channels, float32")
        for kind in (*GATES, "convolution", "softmax"):
            name = f"linear attention, gate {kind}" if kind in GATES else kind
            print_rows(name, [on_one_rank(kind, batch, arguments.repeat) for batch in BATCHES])
    if "processes" in parts:
        cases = [("sequence_aware", kind, "all_gather") for kind in ("binding", *GATES, "convolution", "softmax")]
        cases += [("zigzag", kind, "all_gather") for kind in ("binding", "convolution", "softmax")]
        cases += [("zigzag", "scalar", transport) for transport in TRANSPORTS]
        for ranks in map(int, arguments.process_ranks.split(",")):
            results = on_processes(ranks, cases, arguments.repeat, arguments.fresh_memory)
            print_header(f"{ranks} processes: {HEADS} heads of {STATE_DIM}, {CHANNELS} channels, float32")
            for case in cases:
                strategy, kind, transport = case
                name = f"linear attention, gate {kind}, states by {transport}" if kind in GATES else kind
                label = strategy if kind == "binding" else f"{strategy}, {name}"
                print_rows(label, [results[case, b] for b in range(len(BATCHES))])


if __name__ == "__main__":
    main()
