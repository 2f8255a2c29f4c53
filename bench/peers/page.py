"""The report as one self-contained page, from results.json's contents."""

from __future__ import annotations

from html import escape
from typing import Any

import report

WIDTH, LABEL, BAR, ROW = 600, 240, 235, 18  # of a panel, in pixels
COLOURS = {"evenspan": "#0b6e4f", "peer": "#8a9bb0", "wrong": "#c0392b"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2em auto; padding: 0 1em; color: #1c2733; }
h1, h2 { font-weight: 600; } h2 { margin-top: 2em; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(600px, 1fr)); gap: 14px; }
svg { background: #f7f9fb; border-radius: 6px; } svg text { font: 11px system-ui, sans-serif; fill: #1c2733; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: 3px 8px; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #e3e8ee; }
.scroll { overflow-x: auto; } .note { color: #5a6b7d; }
"""


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{style}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{colour}" rx="2"/>'


def _colour(name: str) -> str:
    return COLOURS["evenspan" if name.startswith("evenspan") else "peer"]


def bars(title: str, values: list[tuple[str, float, str]], limit: float, notes: list[tuple[str, str]]) -> str:
    """Draw a panel: a bar for each (name, value, text), and names that have a note in place of a bar."""
    height = 34 + ROW * (len(values) + len(notes)) + 6
    parts = [_text(10, 18, title, style="font-weight:600;font-size:13px")]
    y = 30.0
    for name, value, text in values:
        parts.append(_text(LABEL - 8, y + 12, name, "end"))
        parts.append(_rect(LABEL, y + 2, BAR * value / limit, ROW - 5, _colour(name)))
        parts.append(_text(LABEL + BAR + 8, y + 12, text))
        y += ROW
    if limit >= 1:  # where bars are ratios
        x = f"{LABEL + BAR / limit:.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="28" y2="{y:.1f}" stroke="#1c2733" stroke-dasharray="3 3"/>')
    for name, note in notes:
        parts.append(_text(LABEL - 8, y + 12, name, "end", "fill:#8795a5"))
        parts.append(_text(LABEL, y + 12, note[:58], style=f"fill:{COLOURS['wrong']}"))
        y += ROW
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">{"".join(parts)}</svg>'


def _fraction_panel(batch: dict[str, Any], ranks: int) -> str:
    timed = [(name, x) for name, x in batch["systems"].items() if "median_ms" in x]
    timed.sort(key=lambda item: item[1]["median_ms"])
    fractions = [(name, report.fraction(batch, x, ranks), x["median_ms"]) for name, x in timed]
    values = [(name, fraction, f"{fraction:.3f}, {median:.1f} ms") for name, fraction, median in fractions]
    notes = [
        (name, f"{x['status']}: {x['reason']}")
        for name, x in batch["systems"].items()
        if x["status"] in ("wrong", "failed")
    ]
    limit = max([1.0, *(value for _, value, _ in values)])
    return bars(batch["title"], values, limit, notes)


def _bytes_panel(batch: dict[str, Any]) -> str:
    found = [(n, x["sent_bytes"] / 1e6) for n, x in batch["systems"].items() if x["status"] == "ok"]
    found.sort(key=lambda item: item[1])
    limit = max([1e-9, *(value for _, value in found)])
    return bars(batch["title"], [(n, 0.999 * v / limit, f"{v:.2f} MB") for n, v in found], 0.999, [])


def _means(results: dict[str, Any]) -> str:
    found = report.speed_ups(results)
    values = [(group, report.geometric_mean([x for _, x in ups])) for group, ups in found.items()]
    least = [f"{v:.2f}, least {min(x for _, x in found[g]):.2f}" for g, v in values]
    limit = max([1.0, *(v for _, v in values)])
    bar_values = [(group, value, text) for (group, value), text in zip(values, least, strict=True)]
    return bars("time of a peer over Evenspan's, geometric mean over the batches it runs", bar_values, limit, [])


def _table(results: dict[str, Any]) -> str:
    heads = "".join(f"<th>{escape(batch['title'])}</th>" for batch in results["batches"])
    rows = []
    for name in results["versions"]:
        cells = []
        for batch in results["batches"]:
            x, own = batch["systems"][name], report.own_times(batch)
            if "over_anchor" in x and own:
                ratio = report.ratio(x, own)
                shade = min(0.7, abs(ratio - 1)) if ratio >= 1 else 0.0
                colour = f"rgba(11,110,79,{shade:.2f})" if ratio >= 1 else "rgba(192,57,43,.45)"
                cells.append(f'<td style="background:{colour}">{ratio:.2f}</td>')
            else:
                cells.append(f'<td class="note" title="{escape(x.get("reason", ""))}">{x["status"]}</td>')
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><tr><th>system</th>{heads}</tr>{"".join(rows)}</table></div>'


def _llama(results: dict[str, Any]) -> str:
    found = results.get("llama")
    if not found:
        return ""
    systems = found["systems"].items()
    timed = [(name, x["median_ms"], f"{x['median_ms']:.0f} ms") for name, x in systems if "median_ms" in x]
    notes = [(name, f"{x['status']}: {x['reason']}") for name, x in systems if x["status"] != "ok"]
    limit = max([1.0, *(value for _, value, _ in timed)])
    values = [(name, 0.999 * value / limit, text) for name, value, text in timed]
    panel = bars("forward, loss, backward, gradients, AdamW", values, 0.999, notes)
    return f'<h2>A training step of a small Llama</h2><div class="panels">{panel}</div>'


def html(results: dict[str, Any]) -> str:
    """Return the page."""
    m, ranks = results["machine"], results["ranks"]
    fractions = "".join(_fraction_panel(batch, ranks) for batch in results["batches"])
    llama = _llama(results)
    sent = "".join(_bytes_panel(batch) for batch in results["batches"])
    about = (
        f"{m['date']}, {m['cores']} cores of {m['processor']}, {m['device']}, torch {m['torch']}, "
        f"commit {m['commit']}: {ranks} processes, {results['repetitions']} repetitions by turns; each step is "
        "measured by those of evenspan auto before and after it. All systems compute with the same kernel, and only "
        "results within rounding of exact attention have a time."
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Evenspan beside its peers</title><style>{STYLE}</style>
<h1>Evenspan beside its peers</h1><p class="note">{escape(about)}</p>
<div class="panels">{_means(results)}</div>
<h2>Fraction of the ideal</h2>
<p class="note">The ideal, the line, is the kernel alone on one rank over all documents, by the ranks.</p>
<div class="panels">{fractions}</div>
<h2>Time over that of evenspan auto</h2>{_table(results)}
{llama}<h2>Bytes on the wire</h2>
<p class="note">All ranks, a step forward and backward, as the interface counted them.</p>
<div class="panels">{sent}</div>
</html>
"""
