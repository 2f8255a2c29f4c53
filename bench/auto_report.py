"""What `auto` chooses on real lengths, on modelled H100 nodes: a Markdown table on standard output.

20 batches for each machine, drawn with a fixed seed, documents cut at a quarter of the batch. `step / bound` is the
modelled step over the least that any plan's could be; `below uniform` the best uniform strategy's step (simulated, or
at least its bound) over auto's. Run: python bench/auto_report.py [BATCHES]
"""

import json
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


def simulate(batch: list[int], ranks: int) -> dict:
    """Return what `evenspan simulate` writes as JSON."""
    words = ["simulate", "--lengths", "-", "--ranks", str(ranks), "--strategy", "auto", "--json", "-"]
    done = subprocess.run(
        [ROOT / "build/bin/evenspan", *words],
        input="\n".join(map(str, batch)),
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


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
                group = got["auto"]["ranks_per_group"]
                chosen[got["auto"]["strategy"] + (f"/{group}" if group else "")] += 1
            names = ", ".join(f"{n} {count}" for n, count in chosen.most_common())
            print(
                f"| {name}, {ranks}, {tokens >> 10}K | {statistics.mean(to_bound):.3f} ({max(to_bound):.3f}) | "
                f"{min(to_uniform):.2f} | {statistics.mean(work):.4f} | {statistics.mean(even):.3f} | {names} |",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
