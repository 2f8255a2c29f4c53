"""What `auto` chooses on real lengths, on modelled H100 nodes: a Markdown table on standard output.

20 batches for each machine, drawn with a fixed seed, documents cut at a quarter of the batch. `step / bound` is the
modelled step over the least that any plan's could be; `below uniform` the best uniform strategy's step (simulated, or
at least its bound) over auto's. Run: python bench/auto_report.py [BATCHES]

With programs instead, what choosing costs in each of them, such as one before a change and one after it: the processor
time of `evenspan simulate --strategy auto` on the first documents of the lengths with 2M tokens, the median of 5 runs,
programs in turn. Run: python bench/auto_report.py PROGRAM...
"""

import json
import os
import random
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNIFORM = {"ring", "zigzag", "striped", "all_gather", "zigzag_all_gather", "ulysses", "usp", "token_ring"}
MACHINES = [(8, 256 << 10), (32, 1 << 20), (64, 2 << 20), (128, 4 << 20)]


def draw(lengths: list[int], tokens: int, generator: random.Random) -> list[int]:
    """Draw document lengths that sum to `tokens`."""
    batch: list[int] = []
    while (left := tokens - sum(batch)) > 0:
        batch.append(min(generator.choice(lengths), tokens // 4, left))
    return batch


def simulate(batch: list[int], ranks: int, program: str | Path = ROOT / "build/bin/evenspan") -> dict:
    """Return what `evenspan simulate` writes as JSON."""
    words = ["simulate", "--lengths", "-", "--ranks", str(ranks), "--strategy", "auto", "--json", "-"]
    done = subprocess.run(
        [program, *words],
        input="\n".join(map(str, batch)),
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def choice(got: dict) -> str:
    """Return the name of what auto chose, with its ranks a group."""
    group = got["auto"]["ranks_per_group"]
    return got["auto"]["strategy"] + (f"/{group}" if group else "")


def first(lengths: list[int], tokens: int) -> list[int]:
    """Return the first documents, the last one cut, that sum to `tokens`."""
    batch: list[int] = []
    for length in lengths:
        if tokens == 0:
            break
        batch.append(min(length, tokens))
        tokens -= batch[-1]
    return batch


def child_seconds() -> float:
    """Return the processor time of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main_times(programs: list[str]) -> None:
    """Print the table of what choosing costs."""
    generator = random.Random(7)
    kinds = {
        name: list(map(int, (ROOT / f"bench/data/{name}_20000.txt").read_text().split()))
        for name in ("wikipedia", "prolong")
    }
    kinds["256K, then wikipedia"] = [256 << 10, *kinds["wikipedia"]]
    kinds["256 to 256K, log-uniform"] = [int(2 ** generator.uniform(8, 18)) for _ in range(1000)]
    kinds["all 32K"] = [32 << 10] * 64
    columns = "".join(f" {name} s | step ms | chosen | simulated |" for name in programs)
    print(f"| lengths | documents | ranks |{columns}")
    print("|---|---|---|" + "---|---|---|---|" * len(programs))
    for name, lengths in kinds.items():
        batch = first(lengths, 2 << 20)
        for ranks in (8, 32, 64):
            seconds: dict[str, list[float]] = {program: [] for program in programs}
            said: dict[str, str] = {}
            for _ in range(5):
                for program in programs:
                    before = child_seconds()
                    got = simulate(batch, ranks, program)
                    seconds[program].append(child_seconds() - before)
                    step = 1e3 * got["strategies"][0]["step_seconds"]
                    simulated = [c["simulated"] for c in got["auto"]["candidates"]]
                    said[program] = f"{step:.3f} | {choice(got)} | {sum(simulated)} of {len(simulated)}"
            cells = "".join(f" {statistics.median(seconds[p]):.2f} | {said[p]} |" for p in programs)
            print(f"| {name} | {len(batch)} | {ranks} |{cells}", flush=True)


def main(num_batches: int) -> None:
    """Print the table."""
    print("| lengths, ranks, tokens | step / bound mean (worst) | below uniform, least | work | tokens | chosen |")
    print("|---|---|---|---|---|---|")
    for name in ("prolong", "wikipedia"):
        lengths = list(map(int, (ROOT / f"bench/data/{name}_20000.txt").read_text().split()))
        for ranks, tokens in MACHINES:
            generator = random.Random(7)
            to_bound, to_uniform, work, even = [], [], [], []
            chosen: Counter[str] = Counter()
            for _ in range(num_batches):
                got = simulate(draw(lengths, tokens, generator), ranks)
                auto = got["strategies"][0]
                to_bound.append(auto["step_seconds"] / got["lower_bound_seconds"])
                uniform = [c["step_seconds"] for c in got["auto"]["candidates"] if c["strategy"] in UNIFORM]
                to_uniform.append(min(uniform) / auto["step_seconds"])
                work.append(auto["work_max_over_mean"])
                even.append(auto["tokens_max_over_mean"])
                chosen[choice(got)] += 1
            names = ", ".join(f"{n} {count}" for n, count in chosen.most_common())
            print(
                f"| {name}, {ranks}, {tokens >> 10}K | {statistics.mean(to_bound):.3f} ({max(to_bound):.3f}) | "
                f"{min(to_uniform):.2f} | {statistics.mean(work):.4f} | {statistics.mean(even):.3f} | {names} |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdigit():
        main_times(sys.argv[1:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
