"""Checks every system on every batch, times the right ones by turns, and writes what came of it."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from batches import DTYPES, ROOT, SHAPES, Batch, batches, tensors
from pool import Pool, RankError
from reference import NAMES, exact, tolerance
from report import EVENSPAN
from worker import DIRECT, DIRECT_ALL

CHECK_SECONDS = 120.0  # that a system may take for its two steps
PROFILED = {EVENSPAN}
LLAMA_STEPS = 3
LLAMA_TOLERANCE = 1e-4  # of losses, relative: float32 through 4 layers, and AdamW, which divides by small gradients


def summary(seconds: list[float], over_anchor: list[float], processor_seconds: list[float]) -> dict[str, Any]:
    """Return what the report needs of a system's steps; `processor_seconds` are those of each rank."""
    return {
        "least_ms": 1e3 * min(seconds),
        "median_ms": 1e3 * statistics.median(seconds),
        "all_ms": [1e3 * s for s in seconds],
        "over_anchor": over_anchor,
        "processor_ms": [1e3 * used for used in processor_seconds],
    }


def selected(options: argparse.Namespace) -> list[Batch]:
    """Return the batches that the arguments name.

    Raises:
        SystemExit: An argument names a batch or type that does not exist.
    """
    found = batches(options.ranks)
    names = list(dict.fromkeys(batch.name for batch in found))
    wanted = options.batches.split(",") if options.batches else names
    dtypes = options.dtypes.split(",")
    for word, known in [(w, names) for w in wanted] + [(d, list(DTYPES)) for d in dtypes]:
        if word not in known:
            sys.exit(f"[bench-peers] {word!r} must be one of: {', '.join(known)}")
    shapes = SHAPES if options.shapes == "all" else SHAPES[:1]
    return [b for b in found if b.name in wanted and b.dtype in dtypes and b.shape in shapes]


def say(text: str) -> None:
    """Tell how far the run is."""
    print(text, file=sys.stderr, flush=True)


class Harness:
    """The run: pools of processes by number of ranks, and the findings."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Start the processes that are timed."""
        self.options = options
        self.backend = "nccl" if torch.cuda.is_available() else "gloo"
        self.pools = {options.ranks: Pool(options.ranks, self.backend)}
        self.versions, self.missing = self.pools[options.ranks].call("listed")[0]
        words = options.systems.split(",") if options.systems else [""]
        self.names = [name for name in self.versions if any(word in name for word in words)]
        if not self.names:
            sys.exit(
                f"[bench-peers] no system's name contains {options.systems!r}; they are: {', '.join(self.versions)}"
            )
        self.folder = tempfile.TemporaryDirectory()
        self.profiles: dict[tuple[object, str], str] = {}

    def profile(self, batch: Batch) -> str | None:
        """Return the machine's profile for a shape and type, measured once."""
        key = (batch.shape, batch.dtype)
        if self.options.calibrate <= 0 or PROFILED.isdisjoint(self.names):
            return None
        if key not in self.profiles:
            path = str(Path(self.folder.name) / f"profile-{len(self.profiles)}.json")
            shape = batch.shape
            words = [f"--heads={shape.heads}", f"--kv-heads={shape.kv_heads}", f"--head-dim={shape.head_dim}"]
            words += [f"--dtype={batch.dtype}", "--out=-", "--longest=8192", f"--seconds={self.options.calibrate:g}"]
            say(f"calibrating for {shape}, {batch.dtype}")
            self.pools[self.options.ranks].call("profile", words, path)
            self.profiles[key] = path
        return self.profiles[key]

    def exact(self, batch: Batch) -> tuple[str, list[tuple[float, float]]]:
        """Compute the exact results; return their file, and the largest element and norm of each."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        found = exact(batch.lengths, tensors(batch))
        path = Path(self.folder.name) / "exact.pt"
        torch.save(found, path)
        return str(path), [(float(x.abs().max()), float(x.double().norm())) for x in found]

    def check(self, pool: Pool, batch: Batch, name: str, file: str, sizes: list[tuple[float, float]]) -> dict[str, Any]:
        """Return what a system did with a batch: status "ok", "wrong", "failed" or "unsupported", and counts."""
        try:
            found = pool.call("check", batch, name, file, limit_seconds=CHECK_SECONDS)
        except RankError as error:
            return {"status": "failed", "reason": str(error)}
        if "unsupported" in found[0]:
            return {"status": "unsupported", "reason": found[0]["unsupported"]}
        errors = {}
        for key, (largest, norm) in zip(NAMES, sizes, strict=True):
            worst = max(rank["errors"][key][0] for rank in found) / largest
            total = math.sqrt(sum(rank["errors"][key][1] for rank in found)) / norm
            errors[key] = max(worst, total) if math.isfinite(worst + total) else math.inf
        pairs = [rank["pairs"] for rank in found]
        result: dict[str, Any] = {
            "status": "ok" if max(errors.values()) <= tolerance(batch) else "wrong",
            "errors": errors,
            "pairs": pairs,
            "work": max(pairs) * len(pairs) / max(1, sum(pairs)),
            "rows": [rank["rows"] for rank in found],
            "prepare_ms": 1e3 * max(rank["prepare_seconds"] for rank in found),
            "sent_bytes": max(0, found[0]["sent_bytes"]),
        }
        if result["status"] == "wrong":
            worst_name = max(errors, key=lambda key: errors[key])
            result["reason"] = f"error {errors[worst_name]:.2g} in {worst_name}"
        return result

    def measure(self, pool: Pool, batch: Batch, names: list[str]) -> dict[str, dict[str, Any]]:
        """Time the systems by turns, each between two steps of Evenspan's, or of the kernel if that is not ok."""
        anchor = EVENSPAN if EVENSPAN in names else DIRECT_ALL
        found = pool.call("measure", batch, names, anchor, self.options.repetitions, limit_seconds=3600.0)
        # A step takes as long as on the slowest rank.
        beside = [max(seconds for seconds, _ in ranks) for ranks in zip(*(of for _, of in found), strict=True)]
        processor = [statistics.median(used for _, used in of) for _, of in found]
        # The anchor stands beside every step: of each round its first counts, so that its least is of as many.
        rounds = beside[: -1 : len(found[0][0])]
        times = {anchor: summary(rounds, [1.0], processor)}
        for name in found[0][0]:
            runs = [of[name] for of, _ in found]
            seconds = [max(second for _, second, _ in ranks) for ranks in zip(*runs, strict=True)]
            places = [place for place, _, _ in runs[0]]
            over = [2 * s / (beside[at] + beside[at + 1]) for s, at in zip(seconds, places, strict=True)]
            times[name] = summary(seconds, over, [statistics.median(used for _, _, used in run) for run in runs])
        return times

    def run(self, batch: Batch) -> dict[str, Any]:
        """Check all systems on a batch on every number of ranks, and time the right ones."""
        batch = dataclasses.replace(batch, profile=self.profile(batch))
        file, sizes = self.exact(batch)
        pool = self.pools[self.options.ranks]
        systems = {name: self.check(pool, batch, name, file, sizes) for name in self.names}
        good = [name for name in self.names if systems[name]["status"] == "ok"]
        try:
            times = self.measure(pool, batch, good)
        except RankError as error:
            for name in good:
                systems[name].update(status="failed", reason=f"while all were timed: {error}")
            times = self.measure(pool, batch, [])
        for name in self.names:
            systems[name].update(times.get(name, {}))
        counts = {}
        for ranks in [int(word) for word in self.options.count_ranks.split(",") if word]:
            other = self.pools.setdefault(ranks, Pool(ranks, self.backend))
            more = dataclasses.replace(batch, ranks=ranks)
            counts[ranks] = {name: self.check(other, more, name, file, sizes) for name in self.names}
        return {
            "batch": batch.name,
            "title": batch.title,
            "shape": str(batch.shape),
            "dtype": batch.dtype,
            "lengths": batch.lengths,
            "causal_pairs": batch.causal_pairs,
            "tolerance": tolerance(batch),
            "direct": times[DIRECT],
            "direct_all": times[DIRECT_ALL],
            "systems": systems,
            "counts": counts,
        }

    def llama(self) -> dict[str, Any]:
        """Check and time a training step of the small Llama."""
        import llama

        say("a training step of a small Llama")
        pool = self.pools[self.options.ranks]
        wanted = llama.losses_alone(LLAMA_STEPS)
        systems: dict[str, dict[str, Any]] = {}
        for name in llama.SYSTEMS:
            try:
                losses = pool.call("llama", "check", name, LLAMA_STEPS, limit_seconds=CHECK_SECONDS)[0]
            except RankError as error:
                systems[name] = {"status": "failed", "reason": str(error)}
                continue
            error = max(abs(a / b - 1) for a, b in zip(losses, wanted, strict=True))
            systems[name] = {"status": "ok" if error <= LLAMA_TOLERANCE else "wrong", "losses": losses, "error": error}
            if error > LLAMA_TOLERANCE:
                systems[name]["reason"] = f"losses {losses}, those of one process are {wanted}"
        good = [name for name, x in systems.items() if x["status"] == "ok"]
        found = pool.call("llama", "measure", good, self.options.repetitions, limit_seconds=3600.0)
        for name in good:
            seconds = [max(rank[name][i] for rank in found) for i in range(self.options.repetitions)]
            systems[name].update({"least_ms": 1e3 * min(seconds), "median_ms": 1e3 * statistics.median(seconds)})
        return {"losses": wanted, "lengths": llama.LENGTHS, "version": llama.VERSION, "systems": systems}


def machine() -> dict[str, Any]:
    """Describe what the run ran on."""
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model[0] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }


def run(options: argparse.Namespace) -> None:
    """Do all that the arguments ask for and write results.json, report.md and report.html."""
    import page
    import report

    chosen = selected(options)
    harness = Harness(options)
    results: dict[str, Any] = {
        "machine": machine(),
        "command": "scripts/bench_peers.sh " + " ".join(sys.argv[1:]),
        "ranks": options.ranks,
        "repetitions": options.repetitions,
        "versions": {name: harness.versions[name] for name in harness.names},
        "missing": harness.missing,
        "batches": [],
    }
    options.write.mkdir(parents=True, exist_ok=True)
    try:
        if options.llama:
            results["llama"] = harness.llama()
        for number, batch in enumerate(chosen):
            say(f"{number + 1} of {len(chosen)}: {batch.title}")
            results["batches"].append(harness.run(batch))
            (options.write / "results.json").write_text(json.dumps(results, indent=1))
            (options.write / "report.md").write_text(report.markdown(results))
            (options.write / "report.html").write_text(page.html(results))
    finally:
        for pool in harness.pools.values():
            pool.stop()
    print(f"report: {options.write / 'report.md'} and {options.write / 'report.html'}")
