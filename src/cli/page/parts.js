"use strict";
// What pages of pictures share: data, numbers with units, canvases whose boxes explain themselves.
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const number = (n, digits = 3) => n.toLocaleString("en-US", {maximumFractionDigits: digits});
// One unit for all numbers of a picture, that of the largest.
const unit_of = (most, units) => { const found = units.find(([size]) => most >= size) || units[units.length - 1]; return {size: found[0], name: found[1], show: n => number(n / found[0]) + " " + found[1]}; };
let tips = {};  // of each canvas: boxes and their words

function canvas(id, height) {
  const c = at(id), scale = window.devicePixelRatio || 1, width = c.clientWidth;
  c.style.height = height + "px"; c.width = width * scale; c.height = height * scale;
  const g = c.getContext("2d");
  g.scale(scale, scale); g.clearRect(0, 0, width, height); g.font = "12.5px system-ui, sans-serif"; g.textBaseline = "middle";
  tips[id] = [];
  return [g, width];
}
function box(id, g, x, y, w, h, fill, tip) {
  g.fillStyle = fill; g.fillRect(x, y, Math.max(w, 0.5), h);
  if (tip) tips[id].push([x, y, Math.max(w, 2), h, tip]);
}
function text(g, words, x, y, align, fill) { g.fillStyle = fill || "#566074"; g.textAlign = align; g.fillText(words, x, y); }
function line(g, x1, y1, x2, y2, stroke, dashes) { g.strokeStyle = stroke; g.setLineDash(dashes || []); g.beginPath(); g.moveTo(x1, y1); g.lineTo(x2, y2); g.stroke(); g.setLineDash([]); }
const mean_line = (g, x1, y1, x2, y2) => line(g, x1, y1, x2, y2, "#dc2626", [4, 3]);
// 1, 2 or 5 times a power of ten: from one mark of an axis to the next, of which `most` fit.
function step_of(range, most) {
  const raw = range / Math.max(1, most), power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find(f => f * power >= raw * 0.999);
}
function key(fill, words) { const key = document.createElement("span"); key.className = "key"; const i = document.createElement("i"); i.style.background = fill; key.append(i, words); return key; }
// "2342.863" as "2,342.863"; what is no number stays.
function grouped(cell) { const [, whole, rest] = /^(\d+)(\.\d+)?$/.exec(cell) || []; return whole ? Number(whole).toLocaleString("en-US") + (rest || "") : cell; }
// Shows the words of the box under the mouse.
function watch_mouse() {
  for (const c of document.querySelectorAll("canvas")) {
    c.onmousemove = e => {
      const x = e.offsetX, y = e.offsetY, hit = (tips[c.id] || []).findLast(([bx, by, w, h]) => x >= bx && x <= bx + w && y >= by && y <= by + h);
      const tip = at("tip"); tip.style.display = hit ? "block" : "none";
      if (hit) { tip.textContent = hit[4]; tip.style.left = Math.min(e.clientX + 14, innerWidth - 350) + "px"; tip.style.top = e.clientY + 14 + "px"; }
    };
    c.onmouseleave = () => at("tip").style.display = "none";
  }
}
