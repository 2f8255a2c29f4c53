"""The report as Markdown, from results.json's contents."""

from __future__ import annotations

import math
from typing import Any

EVENSPAN = "evenspan auto"  # what stands for Evenspan in all comparisons; a peer has its best mode
GROUPS = {  # what Evenspan is set against, by the beginning of names; the best of each group counts
    "the best peer": "",
    "llama3_varlen": "ring-flash-attn llama3_varlen",
    "ring_varlen": "ring-flash-attn ring_varlen",
    "zigzag_varlen": "ring-flash-attn zigzag_varlen",
    "DeepSpeed Ulysses": "DeepSpeed Ulysses",
}


def best(batch: dict[str, Any], prefix: str) -> tuple[str, dict[str, Any]] | None:
    """Return the timed system with the least median whose name begins so: a mode of Evenspan, or one of the peers."""
    own = prefix == EVENSPAN
    found = [
        (name, x)
        for name, x in batch["systems"].items()
        if "median_ms" in x and name.startswith("evenspan") == own and name.startswith(prefix)
    ]
    return min(found, key=lambda item: item[1]["median_ms"], default=None)


def ideal_ms(batch: dict[str, Any], ranks: int, key: str = "median_ms") -> float:
    """Return the time of the kernel alone on one rank, divided by the ranks."""
    return batch["direct"][key] / ranks


def speed_ups(results: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Return by group the batches that it ran rightly, with its median over Evenspan's."""
    found: dict[str, list[tuple[str, float]]] = {}
    for group, prefix in GROUPS.items():
        for batch in results["batches"]:
            own, peer = best(batch, EVENSPAN), best(batch, prefix)
            if own and peer:
                found.setdefault(group, []).append((batch["title"], peer[1]["median_ms"] / own[1]["median_ms"]))
    return found


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean of positive values."""
    return math.exp(sum(map(math.log, values)) / len(values))


def row(cells: list[object]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def _timed_cells(batch: dict[str, Any], name: str, x: dict[str, Any], ranks: int) -> list[object]:
    own = best(batch, EVENSPAN)
    faster = f"{x['median_ms'] / own[1]['median_ms']:.2f}" if own else ""
    return [
        name,
        f"{x['least_ms']:.1f}",
        f"{x['median_ms']:.1f}",
        f"{ideal_ms(batch, ranks) / x['median_ms']:.3f}",
        faster,
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
        "Evenspan is faster by",
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
        f"The kernel alone: {direct['median_ms']:.1f} ms on one rank, {together['median_ms']:.1f} ms on all at once; "
        f"ideal: {ideal_ms(batch, ranks):.1f} ms.",
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
    lines += ["Median of the peer's best mode over the median of `evenspan auto`.", ""]
    lines += [row(["against", "batches", "geometric mean", "least", "on"]), "|---|---|---|---|---|"]
    for group, found in speed_ups(results).items():
        title, least = min(found, key=lambda item: item[1])
        lines.append(row([group, len(found), f"{geometric_mean([x for _, x in found]):.3f}", f"{least:.3f}", title]))
    fractions = []
    for batch in results["batches"]:
        if own := best(batch, EVENSPAN):
            fractions.append(ideal_ms(batch, results["ranks"]) / own[1]["median_ms"])
    if fractions:
        lines += ["", f"Evenspan's fraction of the ideal: geometric mean {geometric_mean(fractions):.3f}, "]
        lines[-1] += f"least {min(fractions):.3f}, largest {max(fractions):.3f}."
    return [*lines, ""]


def _counts_section(results: dict[str, Any]) -> list[str]:
    lines = []
    for ranks in dict.fromkeys(ranks for batch in results["batches"] for ranks in batch["counts"]):
        heads = ["batch", "system", "wire MB", "padding", "pairs / needed", "pairs max / mean"]
        lines += [f"## Counts on {ranks} ranks", "", "No times: the ranks share the cores.", ""]
        lines += [row(heads), "|" + "---|" * len(heads)]
        for batch in results["batches"]:
            for name, x in batch["counts"].get(ranks, {}).items():
                if x["status"] == "ok":
                    padding = 100 * (sum(x["rows"]) / sum(batch["lengths"]) - 1)
                    needed = sum(x["pairs"]) / batch["causal_pairs"]
                    cells = [f"{x['sent_bytes'] / 1e6:.2f}", f"{padding:.1f} %", f"{needed:.3f}", f"{x['work']:.3f}"]
                    lines.append(row([batch["title"], name, *cells]))
                elif x["status"] != "unsupported":
                    lines.append(row([batch["title"], name, f"{x['status']}: {x['reason']}", "", "", ""]))
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
        "same kernel. `of ideal`: the kernel's median on one rank over all documents, divided by the ranks, over the "
        "system's median. `wire MB`: what the loopback interface counted in a step, all ranks and headers, less that "
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
