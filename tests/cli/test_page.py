"""The page that --html writes, looked at in headless Chromium."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from program import ROOT, Run

PROLONG = ROOT / "tests" / "data" / "prolong_100.txt"
# Draws every plan, zooms, and points at every canvas; an exception leaves the attribute out.
DRIVER = """<script>
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
</script></body>"""


def in_browser(page: Path) -> dict[str, str]:
    """What the page's body has as data attributes once its scripts and DRIVER have run."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    assert browser, f"no browser to look at the page with; install one of {', '.join(names)}"
    driven = page.with_name("driven.html")
    driven.write_text(page.read_text().replace("</body>", DRIVER))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([browser, *words, driven.as_uri()], capture_output=True, text=True, timeout=120)
    body = re.search(r"<body([^>]*)>", done.stdout)
    assert body, done.stderr
    return dict(re.findall(r'data-(\w+)="([^"]*)"', body[1]))


@pytest.mark.parametrize("ranks", [2, 24, 80])
def test_simulated_page(evenspan: Run, tmp_path: Path, ranks: int) -> None:
    words = ("--lengths", PROLONG, "--ranks", ranks, "--strategy", "auto,hierarchical,ring")
    done = evenspan("simulate", *words, "--html", "page.html")
    assert done.returncode == 0, done.stderr
    plans = "auto hierarchical" if ranks > 64 else "auto hierarchical ring"  # beyond, a ring has a formula only
    assert in_browser(tmp_path / "page.html") == {"ready": "true", "drawn": plans, "blank": ""}


def test_planned_page(evenspan: Run, tmp_path: Path) -> None:
    words = ("--lengths", PROLONG, "--ranks", 8, "--strategy", "sequence_aware")
    assert evenspan("plan", *words, "--html", "page.html").returncode == 0
    assert in_browser(tmp_path / "page.html") == {"ready": "true", "drawn": "sequence_aware", "blank": ""}


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
