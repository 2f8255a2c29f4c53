"""Attention over hosts with real links between them: a Markdown table on standard output.

Makes hosts out of network namespaces, shapes their links, starts two Gloo ranks on each, and runs attention forward and
backward with every strategy in turn. Needs root and iproute2. Run: python bench/hosts/bench_hosts.py --help
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

from accounting import WAITING, between_hosts, expected_bytes, matrix
from network import HostsError, Network, hosts, require_root, run_ranks
from prediction import ROOT, predict

RANKS_PER_HOST = 2
UNIFORM = ["ring", "zigzag", "all_gather", "ulysses"]
PLANNED = ["sequence_aware", "hierarchical", "mixed", "auto"]
HEADS, HEAD_DIM = 8, 64
POINTS = [43, 139, 523, 2059]  # rows and keys of the measured kernels: like most lengths, no whole vectors


def draw(tokens: int, longest: int, seed: int) -> list[int]:
    """Draw lengths of ProLong, none above `longest`, that sum to `tokens`."""
    lengths = list(map(int, (ROOT / "bench/data/prolong_20000.txt").read_text().split()))
    generator = random.Random(seed)
    batch: list[int] = []
    while (left := tokens - sum(batch)) > 0:
        batch.append(min(generator.choice(lengths), longest, left))
    return batch


def measure(network: Network, job: dict, folder: Path, limit_seconds: float) -> list[dict]:
    """Run rank.py on every host, and return what each rank wrote."""
    (folder / "job.json").write_text(json.dumps(job))
    program = [sys.executable, Path(__file__).with_name("rank.py"), folder / "job.json"]
    run_ranks(network, RANKS_PER_HOST, lambda rank: [*program, folder / f"{rank}.json"], folder, limit_seconds)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(network.num_hosts * RANKS_PER_HOST)]


def sent_by_hosts(found: list[dict], strategy: str) -> list[float]:
    """Return the median bytes that each host's interface counted: both ranks read the same, the first one's stand."""
    return [
        statistics.median(run["sent_bytes"] for run in rank["repetitions"] if run["strategy"] == strategy)
        for rank in found[::RANKS_PER_HOST]
    ]


def summary(strategy: str, found: list[dict], predicted: dict, megabits_per_second: int) -> dict:
    """One row of the table. What waiting alone sends, barriers, is expected of every strategy too."""
    runs = [[run for run in rank["repetitions"] if run["strategy"] == strategy] for rank in found]
    seconds = [max(r["end"] for r in run) - min(r["start"] for r in run) for run in zip(*runs, strict=True)]
    counted = sent_by_hosts(found, strategy)
    crossing = between_hosts(matrix(found[0]["plans"][strategy]), RANKS_PER_HOST)
    of_plan = expected_bytes(crossing)
    expected = [plan + waiting for plan, waiting in zip(of_plan, sent_by_hosts(found, WAITING), strict=True)]
    return {
        "strategy": strategy,
        "tokens": found[0]["most_tokens"][strategy],
        "predicted": predicted["seconds"],
        "seconds": seconds,
        "least": min(seconds),
        "median": statistics.median(seconds),
        "payload": sum(map(sum, crossing)),
        "simulated_payload": predicted["payload"],
        "expected": sum(expected),
        "link": max(of_plan) * 8 / (megabits_per_second * 1e6),
        "counted": sum(counted),
        "worst": max(abs(c / e - 1) for c, e in zip(counted, expected, strict=True)),
    }


def inversions(rows: list[dict]) -> list[str]:
    """Pairs of strategies that the prediction orders otherwise than the measurement.

    Two have no order if they are within 5 %, predicted or in the median, or if neither is faster in every repetition.
    """
    return [
        f"{a['strategy']}/{b['strategy']}"
        for a, b in itertools.permutations(rows, 2)
        if b["predicted"] > 1.05 * a["predicted"]
        and a["median"] > 1.05 * b["median"]
        and all(of_a > of_b for of_a, of_b in zip(a["seconds"], b["seconds"], strict=True))
    ]


def report(network: Network, kv_heads: int, rows: list[dict], waiting_bytes: float) -> None:
    """Print the table of one network and shape."""
    print(f"\n### {network.num_hosts} hosts, {network.megabits_per_second:,} Mbit/s, {kv_heads} kv heads\n")
    heads = ["strategy", "tokens", "least s", "median s", "predicted s", "link s", "plan MB", "expected MB"]
    heads += ["counted MB", "counted / expected"]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for row in sorted(rows, key=lambda row: row["median"]):
        ratio = f"{row['counted'] / row['expected']:.3f} (worst link {row['worst']:.1%} off)" if row["payload"] else "-"
        seconds = [f"{row[key]:.3f}" for key in ("least", "median", "predicted", "link")]
        megabytes = [f"{row[key] / 1e6:.3f}" for key in ("payload", "expected", "counted")]
        print("| " + " | ".join([row["strategy"], f"{row['tokens']:.2f}", *seconds, *megabytes, ratio]) + " |")
    best_uniform = min((row for row in rows if row["strategy"] in UNIFORM), key=lambda row: row["median"])
    best = min(rows, key=lambda row: row["median"])
    wrong = inversions(rows)
    print(
        f"\nFastest: {best['strategy']}; {best_uniform['strategy']}, the fastest of {', '.join(UNIFORM)}, takes "
        f"{best_uniform['median'] / best['median']:.2f} times as long, its busiest link {best_uniform['link']:.2f} s. "
        f"Predicted order: {'right' if not wrong else 'wrong for ' + ', '.join(wrong)}. "
        f"Waiting alone (barriers) sent {waiting_bytes / 1e3:.1f} kB."
    )
    other = [row["strategy"] for row in rows if row["payload"] != row["simulated_payload"]]
    if other:
        print(f"The simulator planned with measured costs and sends other bytes for {', '.join(other)}.")
    sys.stdout.flush()


def compare(network: Network, job: dict, limit_seconds: float) -> None:
    """Run every strategy on one network, and print its table."""
    with tempfile.TemporaryDirectory() as name, hosts(network):
        folder = Path(name)
        found = measure(network, job, folder, limit_seconds)
        machines = [rank["machine"] for rank in found]
        chosen = found[0]["auto"]
        rows = [
            summary(
                strategy,
                found,
                predict(chosen if strategy == "auto" else (strategy, 0), job, machines, folder),
                network.megabits_per_second,
            )
            for strategy in job["strategies"]
        ]
    report(network, job["shape"]["kv_heads"], rows, sum(sent_by_hosts(found, WAITING)))
    print(f"auto is {chosen[0]}" + (f" with {chosen[1]} ranks a group." if chosen[1] else "."), flush=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4], help="numbers of hosts, 2 to 16")
    parser.add_argument("--megabits", type=int, nargs="+", default=[100, 1000], help="rates of the links in Mbit/s")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens of the batch")
    parser.add_argument("--longest", type=int, default=4096, help="documents are cut to so many tokens")
    parser.add_argument(
        "--kv-heads", type=int, nargs="+", default=[4, 8], choices=(1, 2, 4, 8), help=f"shapes of {HEADS} heads"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of each strategy, interleaved")
    parser.add_argument("--seed", type=int, default=7, help="of the batch")
    parser.add_argument("--limit", type=float, default=600, help="seconds that the ranks of one network may take")
    given = parser.parse_args()
    if not all(2 <= n <= 16 for n in given.hosts) or not all(1 <= rate <= 100_000 for rate in given.megabits):
        parser.error(f"--hosts are 2 to 16 and --megabits 1 to 100000, not {given.hosts} and {given.megabits}")
    if min(given.tokens, given.longest, given.repetitions) < 1:
        parser.error("--tokens, --longest and --repetitions are at least 1")
    return given


def main() -> int:
    """Print a table for each network."""
    given = arguments()
    try:
        require_root()
        lengths = draw(given.tokens, given.longest, given.seed)
        print(
            f"{len(lengths)} documents of ProLong, {sum(lengths):,} tokens, longest {max(lengths):,}; "
            f"{HEADS} heads of {HEAD_DIM}, f32, causal.\n"
            f"{RANKS_PER_HOST} ranks a host, one thread each, {os.cpu_count()} cores; {given.repetitions} repetitions"
            " in turn after one to warm up.\n"
            "link s: what the busiest link needs for the bytes of the plan. expected MB: with headers, acknowledgements"
            " and what waiting (barriers) sends.",
            flush=True,
        )
        for num_hosts, kv_heads, rate in itertools.product(given.hosts, given.kv_heads, given.megabits):
            job = {
                "lengths": lengths,
                "shape": {"heads": HEADS, "kv_heads": kv_heads, "head_dim": HEAD_DIM},
                "strategies": UNIFORM + PLANNED,
                "repetitions": given.repetitions,
                "ranks_per_host": RANKS_PER_HOST,
                "points": POINTS,
                "megabits_per_second": rate,
            }
            compare(Network(f"evenspan-{os.getpid()}", num_hosts, rate), job, given.limit)
    except HostsError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[bench-hosts] interrupted; the hosts are removed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
