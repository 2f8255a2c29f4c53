"""The page that --html writes, looked at in headless Chromium."""

import json
import re
from pathlib import Path

import pytest
from browser import in_browser
from program import ROOT, Run

PROLONG = ROOT / "tests" / "data" / "prolong_100.txt"
# Notes where words and lines are drawn, and what of it cannot be read: words beyond the picture's edge, over others, or
# with a line through them; and looks at what a reader needs: units, a legend, labels.
WATCH = """
let words_of = {}, lines_of = {};
const draw_text = text, draw_line = line;
text = (g, words, x, y, align, fill) => {
  draw_text(g, words, x, y, align, fill);
  const wide = g.measureText(words).width, left = align === "right" ? x - wide : align === "center" ? x - wide / 2 : x;
  (words_of[g.canvas.id] ||= []).push([left, y - 5, left + wide, y + 5, String(words)]);
};
line = (g, x1, y1, x2, y2, ...rest) => {
  draw_line(g, x1, y1, x2, y2, ...rest);
  (lines_of[g.canvas.id] ||= []).push([Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)]);
};
const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
const unreadable = [];
function read() {
  words_of = {}; lines_of = {}; draw();
  for (const [id, words] of Object.entries(words_of)) {
    words.forEach((a, i) => {
      if (a[0] < -0.5 || a[2] > at(id).clientWidth + 0.5) unreadable.push(`${id}: ${a[4]} beyond the edge`);
      words.slice(i + 1).forEach(b => meet(a, b) && unreadable.push(`${id}: ${a[4]} over ${b[4]}`));
      (lines_of[id] || []).forEach(b => meet(a, b) && unreadable.push(`${id}: a line through ${a[4]}`));
    });
  }
}
"""
SAY = """
const said = id => (words_of[id] || []).map(w => w[4]).join(" | ");
document.body.dataset.unreadable = [...new Set(unreadable)].join("; ");
for (const c of document.querySelectorAll("canvas")) document.body.dataset["said_" + c.id] = said(c.id);
document.body.dataset.legend = (at("memory_keys") || at("keys")).textContent;
document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
"""
READER = f"""{WATCH}
for (const s of data.strategies) {{ choose(s.name); read(); at("rows").value = "8"; read(); at("rows").value = "16"; }}
{SAY}"""
# Every plan of global batches, whole and its last micro-batch alone, with few and with many ranks.
BATCH_READER = f"""{WATCH}
data.steps.forEach((s, i) => s.plans.forEach((plan, p) => [-1, plan.batches.length - 1].forEach(b => {{
  for (const rows of ["8", "64"]) {{ at("rows").value = rows; choose(i, p, b); read(); }}
}})));
at("batches").querySelector("tr.on").click();  // all of them again
const mouse = {{offsetX: 99, offsetY: 29, clientX: 0, clientY: 0}};
for (const c of document.querySelectorAll("canvas")) c.onmousemove(mouse);
document.body.dataset.tip = at("tip").textContent;
document.body.dataset.chosen = [at("step").value, at("planner").value, at("batch").value].join(" ");
document.body.dataset.steps = [...at("step").options].map(o => o.text).join(" ");
document.body.dataset.planners = [...at("planner").options].map(o => o.text).join(" ");
document.body.dataset.about = at("time_text").textContent;
words_of = {{}}; draw();
{SAY}"""
# Draws every plan, zooms, and points at every canvas; an exception leaves the attribute out.
DRIVER = """
for (const s of data.strategies) {
  choose(s.name);
  at("rows").value = "8"; at("first").value = 3; at("first").oninput({target: at("first")});
  at("timeline").dispatchEvent(new WheelEvent("wheel", {deltaY: -100, cancelable: true}));
  for (const c of document.querySelectorAll("canvas")) c.onmousemove({offsetX: 99, offsetY: 9, clientX: 0, clientY: 0});
}
const blank = [...document.querySelectorAll("canvas")].filter(c => c.offsetParent && !c.getContext("2d")
  .getImageData(0, 0, c.width, c.height).data.some(v => v)).map(c => c.id);
document.body.dataset.drawn = data.strategies.map(s => s.name).join(" ");
document.body.dataset.blank = blank.join(" ");
"""


@pytest.mark.parametrize("ranks", [2, 24, 80])
def test_simulated_page(evenspan: Run, tmp_path: Path, ranks: int) -> None:
    words = ("--lengths", PROLONG, "--ranks", ranks, "--strategy", "auto,hierarchical,ring")
    done = evenspan("simulate", *words, "--html", "page.html")
    assert done.returncode == 0, done.stderr
    plans = "auto hierarchical" if ranks > 64 else "auto hierarchical ring"  # beyond, a ring has a formula only
    assert in_browser(tmp_path / "page.html", DRIVER) == {"ready": "true", "drawn": plans, "blank": ""}


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("ranks", [2, 16, 80])
def test_pictures_can_be_read(evenspan: Run, tmp_path: Path, ranks: int, width: int) -> None:
    words = ("--lengths", PROLONG, "--ranks", ranks, "--strategy", "mixed,sequence_aware")
    assert evenspan("simulate", *words, "--html", "page.html").returncode == 0
    seen = in_browser(tmp_path / "page.html", READER, width)
    assert seen["unreadable"] == ""
    assert seen["wide"] == "false"  # the page scrolls down only
    assert "mean " in seen["said_placement"] and "tokens" in seen["said_placement"]
    assert re.search(r"mean [\d,]+, most [\d,]+", seen["said_balance"])
    assert re.search(r"mean [\d,.]+ ms, most [\d,.]+ ms, \d\.\d{3} of the mean", seen["said_balance"])
    units = {name: set(re.findall(r"[\d.] (\S+)", seen[name])) - {"|"} for name in seen if name.startswith("said_")}
    assert units["said_timeline"] == {"ms"}
    assert len(units["said_memory"] - {"ms"}) == 1 and "ms" in units["said_memory"]  # bytes and a time axis
    assert "to rank" in seen["said_bytes"] and "from" in seen["said_bytes"]
    assert re.search(r"(\S+) (kB|MB|GB)$", seen["said_bytes"])  # the end of the scale
    assert seen["legend"].startswith("rank 0rank 1")


def test_whole_documents_have_their_numbers(evenspan: Run, tmp_path: Path) -> None:
    """Once they were pale bars without a word, which looked like room that is left."""
    words = ("--lengths", "-", "--ranks", 2, "--strategy", "local", "--html", "page.html")
    assert evenspan("simulate", *words, stdin="900\n" * 4).returncode == 0
    words_there = in_browser(tmp_path / "page.html", READER, 1200)["said_placement"].split(" | ")
    assert {"0", "1", "2", "3"} <= set(words_there)


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("setting", ["--ranks 2 --memory-bytes 160GiB", "--ranks 80 --memory-bytes 80GiB"])
def test_page_of_global_batches(evenspan: Run, tmp_path: Path, setting: str, width: int) -> None:
    words = [
        "--lengths",
        PROLONG,
        *setting.split(),
        "--global-batch-documents",
        20,
        "--first-step",
        1,
        "--num-steps",
        2,
    ]
    assert evenspan("batch", *words, "--html", "page.html").returncode == 0
    seen = in_browser(tmp_path / "page.html", BATCH_READER, width)
    assert seen["ready"] == "true" and seen["unreadable"] == "" and seen["wide"] == "false"
    assert (seen["steps"], seen["planners"], seen["chosen"]) == ("1 2", "auto homogeneous static", "1 2 -1")
    assert re.search(r"^Step 2 has 20 documents with [\d,]+ tokens and takes [\d.]+ m?s with static", seen["about"])
    assert seen["legend"] == "workall-to-allof every micro-batchidle"
    assert re.search(r"[\d,]+ fit, most [\d,]+, [\d.]+ % of that", seen["said_tokens"])
    assert set(re.findall(r"[\d.] ([^|\s]+)", seen["said_time"])) in ({"s"}, {"ms"})
    assert re.search(r"[\d,]+ tokens", seen["tip"]) and "rank " in seen["tip"]
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?://|src=|href=|@import", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    for step in data["steps"]:
        for plan in step["plans"]:
            assert sum(sum(micro["tokens"]) for micro in plan["batches"]) == step["tokens"]


def test_planned_page(evenspan: Run, tmp_path: Path) -> None:
    words = ("--lengths", PROLONG, "--ranks", 8, "--strategy", "sequence_aware")
    assert evenspan("plan", *words, "--html", "page.html").returncode == 0
    assert in_browser(tmp_path / "page.html", DRIVER) == {"ready": "true", "drawn": "sequence_aware", "blank": ""}


def test_page_is_self_contained(evenspan: Run, tmp_path: Path) -> None:
    assert evenspan("simulate", "--lengths", PROLONG, "--ranks", 4, "--html", "page.html").returncode == 0
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?://|src=|href=|@import", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    lengths = list(map(int, PROLONG.read_text().split()))
    assert data["lengths"] == lengths
    for plan in data["strategies"]:
        assert sum(plan["tokens"]) == sum(lengths)
        assert sum(sent for _, _, sent in plan["sent"]) == sum(level["bytes"] for level in plan["levels"])


def test_bad_outputs(evenspan: Run) -> None:
    done = evenspan("simulate", "--lengths", PROLONG, "--ranks", 4, "--html", "out", "--json", "out")
    assert done.returncode == 2 and '--json and --html both go to "out"' in done.stderr
    done = evenspan("simulate", "--lengths", PROLONG, "--ranks", 80, "--strategy", "ring", "--html", "out")
    assert done.returncode == 2 and "--html needs a plan" in done.stderr
