"""What the strategies that one may take unseen cost, on modelled H100 nodes of 8: a Markdown table on standard output.

For each number of ranks, batches of 32K tokens a rank: six drawn from real lengths with a fixed seed, documents cut at
a quarter of the batch; one document; one document of half the batch among drawn ones; documents of 4K tokens; documents
of 256. A plan is made without a profile (work by the planner's own constants) and with one; its step is simulated
either way. `step` is the mean and the worst of step / bound; `pairs` and `tokens` are the busiest rank's over the mean,
the worst; `sent` the mean share of a ring's bytes. Run: python bench/strategy_report.py
"""

import json
import random
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = ["mixed", "sequence_aware", "hierarchical", "auto"]
RANKS = [2, 4, 8, 16, 32]
TOKENS_OF_A_RANK = 32 << 10


def draw(lengths: list[int], tokens: int, most: int, generator: random.Random) -> list[int]:
    """Draw document lengths of at most `most` that sum to `tokens`."""
    batch: list[int] = []
    while (left := tokens - sum(batch)) > 0:
        batch.append(min(generator.choice(lengths), most, left))
    return batch


def batches(ranks: int) -> Iterator[list[int]]:
    """Yield the batches for so many ranks."""
    tokens, generator = ranks * TOKENS_OF_A_RANK, random.Random(7)
    for name in ("prolong", "wikipedia"):
        lengths = list(map(int, (ROOT / f"bench/data/{name}_20000.txt").read_text().split()))
        for _ in range(3):
            yield draw(lengths, tokens, tokens // 4, generator)
    yield [tokens]
    yield [tokens // 2, *draw(lengths, tokens // 2, tokens // 4, generator)]
    yield [4096] * (tokens // 4096)
    yield [256] * (tokens // 256)


def plan(batch: list[int], ranks: int, strategy: str, profile: list[str]) -> dict:
    """Return what `evenspan plan` writes as JSON."""
    words = ["plan", "--lengths", "-", "--ranks", str(ranks), "--ranks-per-node", str(min(ranks, 8)), *profile]
    done = subprocess.run(
        [ROOT / "build/bin/evenspan", *words, "--strategy", strategy, "--json", "-"],
        input="\n".join(map(str, batch)),
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def pairs_max_over_mean(planned: dict) -> float:
    """Return (query, key, head) triples of the busiest rank over the mean."""
    pairs = []
    for tiles in planned["tiles"]:
        pairs.append(0)
        for _, q0, q1, k0, k1, kind, h0, h1 in tiles:
            rows, keys = q1 - q0, k1 - k0
            pairs[-1] += (h1 - h0) * (rows * (rows + 1) // 2 if kind == "causal" else rows * keys)
    return max(pairs) / statistics.mean(pairs)


def main() -> None:
    """Print the table."""
    print("| ranks | planned by | strategy | step mean (worst) | pairs | tokens | sent |")
    print("|---|---|---|---|---|---|---|")
    for ranks in RANKS:
        for by, profile in (("constants", []), ("profile", ["--profile", "h100-sxm"])):
            for strategy in STRATEGIES:
                if strategy == "auto" and not profile:
                    continue
                step, pairs, tokens, sent = [], [], [], []
                for batch in batches(ranks):
                    planned = plan(batch, ranks, strategy, profile)
                    metrics = planned["metrics"]
                    step.append(metrics["modelled_seconds"] / metrics["lower_bound_seconds"])
                    pairs.append(pairs_max_over_mean(planned))
                    tokens.append(metrics["tokens_max_over_mean"])
                    sent.append(metrics["sent_bytes_total"] / metrics["ring_bytes_total"])
                print(
                    f"| {ranks} | {by} | `{strategy}` | {statistics.mean(step):.3f} ({max(step):.3f}) | "
                    f"{max(pairs):.2f} | {max(tokens):.2f} | {statistics.mean(sent):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
