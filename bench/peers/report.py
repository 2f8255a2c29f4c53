"""The report as Markdown, from results.json's contents."""

from __future__ import annotations

import math
import statistics
from typing import Any

EVENSPAN = "evenspan auto"  # what stands for Evenspan in all comparisons; a peer has its best mode
GROUPS = {  # what Evenspan is set against, by the beginning of names; the best of each group counts
    "the best peer": "",
    "llama3_varlen": "ring-flash-attn llama3_varlen",
    "ring_varlen": "ring-flash-attn ring_varlen",
    "zigzag_varlen": "ring-flash-attn zigzag_varlen",
    "DeepSpeed Ulysses": "DeepSpeed Ulysses",
}


# What a query and key pair of all heads, and a token's other layers, cost in a model of 7B parameters, in seconds: the
# costs by which plans without a profile balance ranks, from FlexSP (arXiv 2412.01523).
PAIR_SECONDS, TOKEN_SECONDS = 2 * 5.128e-9, 0.1839576e-3


def step_work(batch: dict[str, Any], x: dict[str, Any]) -> float:
    """Return max / mean over the ranks of a whole step's work: of the system's pairs, and of the rows that it holds."""
    heads = int(batch["shape"].split("/")[0])
    work = [
        PAIR_SECONDS * pairs / heads + TOKEN_SECONDS * rows for pairs, rows in zip(x["pairs"], x["rows"], strict=True)
    ]
    return max(work) * len(work) / sum(work)


def ratio(x: dict[str, Any], to: dict[str, Any]) -> float:
    """Return how many times as long x takes, both measured by the steps of the anchor just before and after."""
    return statistics.median(x["over_anchor"]) / statistics.median(to["over_anchor"])


def own_times(batch: dict[str, Any]) -> dict[str, Any] | None:
    """Return what stands for Evenspan, if it was timed."""
    x = batch["systems"].get(EVENSPAN, {})
    return x if "over_anchor" in x else None


def fraction(batch: dict[str, Any], x: dict[str, Any], ranks: int, key: str = "direct") -> float:
    """Return the part of the speed of the kernel alone on one rank ("direct_all": on all at once), times the ranks."""
    return 1 / (ranks * ratio(x, batch[key]))


def best_modes(results: dict[str, Any]) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Return by group the batches that it and Evenspan ran rightly, each with the times of the group's best mode."""
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for group, prefix in GROUPS.items():
        for batch in results["batches"]:
            own = own_times(batch)
            peers = [
                x
                for name, x in batch["systems"].items()
                if "over_anchor" in x and name.startswith(prefix) and not name.startswith("evenspan")
            ]
            if own and peers:
                found.setdefault(group, []).append(
                    (batch, min(peers, key=lambda x: statistics.median(x["over_anchor"])))
                )
    return found


def speed_ups(results: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Return by group its batches, with how many times as long as Evenspan its best mode takes."""
    return {
        group: [(batch["title"], ratio(x, batch["systems"][EVENSPAN])) for batch, x in found]
        for group, found in best_modes(results).items()
    }


def most_speed_up(results: dict[str, Any], group: str) -> float:
    """Return the geometric mean of how many times as long as the kernel on all cores at once the best mode takes.

    No system computes faster than that kernel with the pairs divided evenly and nothing sent, so none is ahead of the
    group by more.
    """
    return geometric_mean(
        [1 / fraction(batch, x, results["ranks"], "direct_all") for batch, x in best_modes(results)[group]]
    )


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean of positive values."""
    return math.exp(sum(map(math.log, values)) / len(values))


def row(cells: list[object]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def _timed_cells(batch: dict[str, Any], name: str, x: dict[str, Any], ranks: int) -> list[object]:
    own = own_times(batch)
    return [
        name,
        f"{x['least_ms']:.1f}",
        f"{x['median_ms']:.1f}",
        f"{fraction(batch, x, ranks):.3f}",
        f"{fraction(batch, x, ranks, 'direct_all'):.3f}",
        f"{ratio(x, own):.2f}" if own else "",
        f"{sum(x['processor_ms']):.1f}",
        f"{x['sent_bytes'] / 1e6:.2f}",
        f"{100 * (sum(x['rows']) / sum(batch['lengths']) - 1):.1f} %",
        f"{sum(x['pairs']) / batch['causal_pairs']:.3f}",
        f"{x['work']:.3f}",
        f"{x['prepare_ms']:.1f}",
    ]


def _batch_section(batch: dict[str, Any], ranks: int) -> list[str]:
    heads = [
        "system",
        "least ms",
        "median ms",
        "of ideal",
        "of all cores",
        "over Evenspan",
        "processor ms",
        "wire MB",
        "padding",
    ]
    heads += ["pairs / needed", "pairs max / mean", "prepare ms"]
    direct, together = batch["direct"], batch["direct_all"]
    lines = [
        f"### {batch['title']}",
        "",
        f"{len(batch['lengths'])} documents, {sum(batch['lengths'])} tokens, longest {max(batch['lengths'])}. "
        f"The kernel alone: {direct['median_ms']:.1f} ms on one rank, {together['median_ms']:.1f} ms on all at once.",
        "",
        row(heads),
        "|" + "---|" * len(heads),
    ]
    timed = [(name, x) for name, x in batch["systems"].items() if "median_ms" in x]
    for name, x in sorted(timed, key=lambda item: item[1]["median_ms"]):
        lines.append(row(_timed_cells(batch, name, x, ranks)))
    lines.append("")
    others = [f"- {name}: {x['status']}, {x['reason']}" for name, x in batch["systems"].items() if x["status"] != "ok"]
    return lines + others + ([""] if others else [])


def _status_section(results: dict[str, Any]) -> list[str]:
    names = list(dict.fromkeys(batch["batch"] for batch in results["batches"]))
    lines = ["## What runs", "", "Both types and all shapes together; the first that is not ok counts.", ""]
    lines += [row(["system", *names]), "|" + "---|" * (len(names) + 1)]
    for system, version in results["versions"].items():
        cells: list[object] = [f"{system} {version}"]
        for name in names:
            found = [b["systems"][system]["status"] for b in results["batches"] if b["batch"] == name]
            cells.append(next((status for status in found if status != "ok"), "ok"))
        lines.append(row(cells))
    lines += ["", *(f"- {package} is missing: {reason}" for package, reason in results["missing"].items()), ""]
    return lines


def _means_section(results: dict[str, Any]) -> list[str]:
    lines = ["## Evenspan beside its peers", ""]
    lines += [
        "How many times as long as `evenspan auto` a peer's best mode takes. `at most`: the geometric mean that would "
    ]
    lines[-1] += (
        "be reached by computing as fast as the kernel does on all cores at once, with the pairs divided evenly "
    )
    lines[-1] += "and nothing sent; a target above that is out of reach of any system here."
    lines += ["", row(["against", "batches", "geometric mean", "at most", "least", "on"]), "|---|---|---|---|---|---|"]
    for group, found in speed_ups(results).items():
        title, least = min(found, key=lambda item: item[1])
        mean, most = geometric_mean([x for _, x in found]), most_speed_up(results, group)
        lines.append(row([group, len(found), f"{mean:.3f}", f"{most:.3f}", f"{least:.3f}", title]))
    for key, what in (("direct", "the ideal"), ("direct_all", "what all cores at once reach")):
        fractions = [
            fraction(batch, own, results["ranks"], key) for batch in results["batches"] if (own := own_times(batch))
        ]
        if fractions:
            lines += ["", f"Evenspan's fraction of {what}: geometric mean {geometric_mean(fractions):.3f}, "]
            lines[-1] += f"least {min(fractions):.3f}, largest {max(fractions):.3f}."
    return [*lines, ""]


def _counts_section(results: dict[str, Any]) -> list[str]:
    lines = []
    for ranks in dict.fromkeys(ranks for batch in results["batches"] for ranks in batch["counts"]):
        heads = ["batch", "system", "wire MB", "padding", "pairs / needed", "pairs max / mean", "step max / mean"]
        lines += [
            f"## Counts on {ranks} ranks",
            "",
            "No times: the ranks share the cores. `step max / mean`: of the work ",
        ]
        lines[-1] += (
            "of a step of a 7B model, attention and all other layers, with FlexSP's costs of a pair and a token: "
        )
        lines[-1] += "what `sequence_aware` balances without a profile, while `auto` balances attention alone here."
        lines.append("")
        lines += [row(heads), "|" + "---|" * len(heads)]
        for batch in results["batches"]:
            for name, x in batch["counts"].get(ranks, {}).items():
                if x["status"] == "ok":
                    padding = 100 * (sum(x["rows"]) / sum(batch["lengths"]) - 1)
                    needed = sum(x["pairs"]) / batch["causal_pairs"]
                    cells = [f"{x['sent_bytes'] / 1e6:.2f}", f"{padding:.1f} %", f"{needed:.3f}", f"{x['work']:.3f}"]
                    lines.append(row([batch["title"], name, *cells, f"{step_work(batch, x):.3f}"]))
                elif x["status"] != "unsupported":
                    lines.append(row([batch["title"], name, f"{x['status']}: {x['reason']}", "", "", "", ""]))
        lines.append("")
    return lines


def _llama_section(results: dict[str, Any]) -> list[str]:
    found = results.get("llama")
    if not found:
        return []
    lines = [
        "## A training step of a small Llama",
        "",
        f"transformers {found['version']}, {len(found['lengths'])} documents, {sum(found['lengths'])} tokens, float32: "
        "forward, loss, backward, gradients summed, AdamW. Losses of the first steps on one process: "
        f"{', '.join(f'{x:.6f}' for x in found['losses'])}.",
        "",
        row(["integration", "least ms", "median ms", "largest error of a loss"]),
        "|---|---|---|---|",
    ]
    for name, x in found["systems"].items():
        if x["status"] == "ok":
            lines.append(row([name, f"{x['least_ms']:.1f}", f"{x['median_ms']:.1f}", f"{x['error']:.1e}"]))
        else:
            lines.append(row([name, x["status"], x["reason"], ""]))
    return [*lines, ""]


def markdown(results: dict[str, Any]) -> str:
    """Return the report."""
    m, ranks = results["machine"], results["ranks"]
    lines = [
        f"# Evenspan beside its peers, {m['date']}",
        "",
        f"{m['cores']} cores of {m['processor']}, {m['device']}, {m['system']}, Python {m['python']}, "
        f"torch {m['torch']}; commit {m['commit']}. Command: `{results['command'].strip()}`.",
        "",
        f"Attention forward + backward on {ranks} processes of one thread, each on its own core (rank modulo cores), "
        f"{results['repetitions']} repetitions by turns; a time is the slowest rank's. All systems compute with the "
        "same kernel. `of ideal`: the time of the kernel alone on one rank over all documents, divided by the ranks, "
        "over the system's; `of all cores`: the same with the kernel on all ranks at once, which cost each other time; "
        "`over Evenspan`: the system's time over that of `evenspan auto`. Each step stands between two of `evenspan "
        "auto`, and its time over their mean is taken, the median of the repetitions: so the machine's drift is in no "
        "ratio, while it is in the milliseconds. "
        "`wire MB`: what the loopback interface counted in a step, all ranks and headers, less that "
        "of the barriers. `processor ms`: of all ranks and their threads.",
        "",
        *_means_section(results),
        *_status_section(results),
        *_llama_section(results),
        f"## Batches on {ranks} ranks",
        "",
    ]
    for batch in results["batches"]:
        lines += _batch_section(batch, ranks)
    lines += _counts_section(results)
    return "\n".join(lines).rstrip() + "\n"
