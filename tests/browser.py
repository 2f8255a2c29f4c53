"""Pages, looked at in headless Chromium."""

import html
import re
import shutil
import subprocess
from pathlib import Path


def in_browser(page: Path, driver: str, width: int = 1200) -> dict[str, str]:
    """What the page's body has as data attributes once its scripts and the driver, a script too, have run."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    assert browser, f"no browser to look at the page with; install one of {', '.join(names)}"
    driven = page.with_name("driven.html")
    driven.write_text(page.read_text().replace("</body>", f"<script>{driver}</script></body>"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    size = f"--window-size={width},3000"
    done = subprocess.run([browser, *words, size, driven.as_uri()], capture_output=True, text=True, timeout=120)
    body = re.search(r"<body([^>]*)>", done.stdout)
    assert body, done.stderr
    return {name: html.unescape(value) for name, value in re.findall(r'data-(\w+)="([^"]*)"', body[1])}


# Sets the attribute `unreadable` to the words in SVG pictures that lie over others, have a line through them, lie
# beyond the picture's edge, or are smaller than nine pixels.
SVG_READER = """
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
const unreadable = new Set();
for (const svg of document.querySelectorAll("svg")) {
  const edge = svg.getBoundingClientRect(), words = [...svg.querySelectorAll("text")];
  const size = parseFloat(getComputedStyle(svg).fontSize) * edge.width / svg.viewBox.baseVal.width;
  if (size < 9) unreadable.add(`${size} pixels in ${svg.getAttribute("aria-label")}`);
  words.forEach((a, i) => {
    const box = a.getBoundingClientRect();
    if (box.left < edge.left - 1 || box.right > edge.right + 1) unreadable.add(`${a.textContent} beyond the edge`);
    for (const b of words.slice(i + 1)) {
      if (meet(box, b.getBoundingClientRect())) unreadable.add(`${a.textContent} over ${b.textContent}`);
    }
    for (const b of svg.querySelectorAll("line")) {
      const line = b.getBoundingClientRect();
      const beside = line.left >= box.right || box.left >= line.right;
      if (beside || line.top >= box.bottom - 3 || box.top >= line.bottom - 3) continue;
      unreadable.add(`a line through ${a.textContent}`);
    }
  });
}
document.body.dataset.unreadable = [...unreadable].join("; ");
document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
"""
