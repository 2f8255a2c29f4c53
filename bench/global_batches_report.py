"""Planners of global batches beside what FlexSP published, and beside the bound: Markdown tables on standard output.

FlexSP's published constants (arXiv 2412.01523, the solver of PKU-DAIR/Hetu-Galvatron), 64 GPUs, 512 documents a step,
steps 10 to 49, lengths as the published runs have them at a context limit of 192K tokens: `evenspan batch` plans and
prices them. The published ratios are of measured steps; the model has no ZeRO-3 traffic and other overheads, which are
about the same for all planners. `gap closed` is the part of the distance between flexsp and the bound that auto closes.

The two files of lengths here have 20,000 documents, of which steps 10 to 38 are whole; the published files have more.

Run: python bench/global_batches_report.py [--wikipedia FILE] [--prolong FILE] [--solver-seconds 10] [--planners a,b]
    [--models 7b,13b,30b] [--first-step 10] [--num-steps 40]
"""

import argparse
import json
import math
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
BINARY = ROOT / "build" / "bin" / "evenspan"
MODELS = ("7b", "13b", "30b")
# Measured on Wikipedia at 192K tokens: DeepSpeed-Ulysses (static), homogeneous ("BatchAda") and FlexSP, seconds a step,
# read off the paper's charts, and the printed ratio of the first to the last.
PUBLISHED = {
    "7b": {"static": 8.1, "homogeneous": 6.0, "flexsp": 4.7, "ratio": 1.72},
    "13b": {"static": 13.9, "homogeneous": 10.6, "flexsp": 8.7, "ratio": 1.59},
    "30b": {"static": 29.0, "homogeneous": 23.3, "flexsp": 17.6, "ratio": 1.64},
}


def run(arguments: argparse.Namespace, lengths: Path, model: str) -> dict:
    """Plan the steps of one file of lengths for one model; returns what `evenspan batch --json` writes."""
    words = ["--lengths", lengths, "--ranks", 64, "--constants", f"flexsp-{model}", "--published-lengths"]
    words += ["--global-batch-documents", 512, "--planner", arguments.planners, "--quiet"]
    words += ["--first-step", arguments.first_step, "--num-steps", arguments.num_steps]
    if "flexsp" in arguments.planners.split(","):
        words += ["--solver-seconds", arguments.solver_seconds]
    done = subprocess.run(
        [str(BINARY), "batch", *map(str, words), "--json", "-"], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout)


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wikipedia", type=Path, default=ROOT / "bench/data/wikipedia_20000.txt")
    parser.add_argument("--prolong", type=Path, default=ROOT / "bench/data/prolong_20000.txt")
    parser.add_argument("--solver-seconds", type=float, default=10)
    parser.add_argument("--planners", default="auto,flexsp,homogeneous,static")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--first-step", type=int, default=10)
    parser.add_argument("--num-steps", type=int, default=29)
    arguments = parser.parse_args()
    planners = arguments.planners.split(",")

    closed, bounds = [], []
    for name, path in (("Wikipedia", arguments.wikipedia), ("ProLong", arguments.prolong)):
        print(f"\n## {name}\n")
        print("| model | bound s | " + " | ".join(f"{p} s (of bound)" for p in planners) + " | gap closed |")
        print("|---|---" + "|---" * len(planners) + "|---|")
        ratios = []
        for model in arguments.models.split(","):
            steps = run(arguments, path, model)["steps"]
            bound = sum(step["lower_bound"]["seconds"] for step in steps) / len(steps)
            seconds = dict.fromkeys(planners, 0.0)
            for step in steps:
                for plan in step["plans"]:
                    seconds[plan["planner"]] += plan["seconds"] / len(steps)
            cells = [f"{seconds[p]:.3f} ({seconds[p] / bound:.3f})" for p in planners]
            gap = "-"
            if "auto" in planners:
                bounds.append(seconds["auto"] / bound)
                if "flexsp" in planners:
                    closed.append((seconds["flexsp"] - seconds["auto"]) / (seconds["flexsp"] - bound))
                    gap = f"{100 * closed[-1]:.1f} %"
            print(f"| {model} | {bound:.3f} | " + " | ".join(cells) + f" | {gap} |", flush=True)
            ratios.append((model, seconds))
        if name == "Wikipedia" and {"static", "homogeneous"} <= set(planners):
            print("\n| model | ratio | modelled | published | modelled / published |\n|---|---|---|---|---|")
            for model, seconds in ratios:
                for other in ("homogeneous", "flexsp"):
                    if other not in planners:
                        continue
                    published = PUBLISHED[model]["static"] / PUBLISHED[model][other]
                    if other == "flexsp":
                        published = PUBLISHED[model]["ratio"]
                    modelled = seconds["static"] / seconds[other]
                    print(
                        f"| {model} | static : {other} | {modelled:.2f} | {published:.2f} "
                        f"| {100 * (modelled / published - 1):+.1f} % |"
                    )
    if bounds:
        print(f"\nauto over the bound, geometric mean: {geometric_mean(bounds):.4f}")
    if closed:
        least = min(closed)
        print(f"gap between flexsp and the bound closed: at least {100 * least:.1f} %", end="")
        print(f", geometric mean {100 * geometric_mean(closed):.1f} %" if least > 0 else "")


if __name__ == "__main__":
    main()
