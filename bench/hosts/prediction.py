"""What the simulator says about hosts whose kernels and links were measured in the same run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path

from accounting import goodput

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BIN", ROOT / "build" / "bin" / "evenspan"))

FREE = 1e21  # operations a second of token-wise layers, of which attention alone has none


def median(machines: list[dict], link: str, key: str) -> float:
    """Of the ranks."""
    return statistics.median(machine[link][key] for machine in machines)


def processor_seconds(machines: list[dict], link: str) -> dict[str, float]:
    """What a message takes from the cores at each end, of which an exchange has two at both."""
    return {
        f"compute_{of}_seconds": median(machines, link, f"processor_seconds_per_{of}") / 2 for of in ("byte", "message")
    }


def rising(seconds: list[list[float]]) -> list[list[float]]:
    """None below one with fewer rows or keys."""
    table = [list(row) for row in seconds]
    for q, row in enumerate(table):
        for k in range(len(row)):
            row[k] = max([row[k], *row[max(0, k - 1) : k], *(above[k] for above in table[max(0, q - 1) : q])])
    return table


def kernels(machines: list[dict], way: str) -> dict:
    """Mean times of the ranks in one pass."""
    grids = [machine[way]["seconds"] for machine in machines]
    squares = [machine[way]["square_seconds"] for machine in machines]
    mean = [[statistics.mean(times) for times in zip(*rows, strict=True)] for rows in zip(*grids, strict=True)]
    return {
        "operation_seconds": 0,
        "segment_seconds": 0,
        "seconds": rising(mean),
        "square_seconds": [statistics.mean(times) for times in zip(*squares, strict=True)],
    }


def model(shape: dict[str, int]) -> dict[str, int]:
    """A model of one layer with these heads."""
    return {
        "hidden_size": shape["heads"] * shape["head_dim"],
        "intermediate_size": 4 * shape["heads"] * shape["head_dim"],
        "num_hidden_layers": 1,
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": shape["head_dim"],
        "vocab_size": 0,
    }


def profile(machines: list[dict], job: dict) -> dict:
    """A profile of the measurements."""
    shape, points = job["shape"], job["points"]
    copied = [machine["copied_bytes_per_second"] for machine in machines]
    shaped = goodput(job["megabits_per_second"] * 1e6)  # of a host's link, which its ranks share
    return {
        "name": "hosts",
        "attention": [
            {
                "head_dim": shape["head_dim"],
                "dtypes": ["f32"],
                "tile": 1,
                "queries": points,
                "keys": points,
                "squares": points,
                "forward": kernels(machines, "forward"),
                "backward": kernels(machines, "backward"),
            }
        ],
        "memory_bytes_per_second": statistics.mean(copied),
        "memory_operation_seconds": 0,
        "forward_flops_per_second": FREE,
        "backward_flops_per_second": FREE,
        "ranks_per_node": job["ranks_per_host"],
        "links": [
            {
                **{key: median(machines, "inside", key) for key in ("latency_seconds", "bytes_per_second")},
                **processor_seconds(machines, "inside"),
            },
            {
                "latency_seconds": median(machines, "between", "latency_seconds"),
                "bytes_per_second": shaped,
                "cards": 1,
                "card_bytes_per_second": shaped,
                **processor_seconds(machines, "between"),
            },
        ],
    }


def topology(num_ranks: int, ranks_per_host: int) -> dict:
    """Hosts with the profile's links, on the cores of one machine."""
    levels = [{"group_size": ranks_per_host}, {"group_size": num_ranks}]
    return {"ranks": num_ranks, "ranks_per_node": ranks_per_host, "levels": levels, "cores": os.cpu_count() or 1}


def simulate(chosen: tuple[str, int], job: dict, files: dict[str, dict], folder: Path) -> dict:
    """Return what `evenspan simulate` says of a strategy with so many ranks a group (0: the default)."""
    words = ["simulate", "--lengths", "-", "--dtype", "f32", "--strategy", chosen[0], "--json", "-"]
    if chosen[1]:
        words += ["--ranks-per-group", str(chosen[1])]
    for name, content in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content))
        words += [f"--{name}", str(path)]
    lengths = "\n".join(map(str, job["lengths"]))
    done = subprocess.run([PROGRAM, *words], input=lengths, text=True, capture_output=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)["strategies"][0]


def predict(chosen: tuple[str, int], job: dict, machines: list[dict], folder: Path) -> dict:
    """Return `seconds` of forward and backward, and the bytes that the simulated plan sends between hosts."""
    files = {
        "profile": profile(machines, job),
        "topology": topology(len(machines), job["ranks_per_host"]),
        "model": model(job["shape"]),
    }
    result = simulate(chosen, job, files, folder)
    ways = [result["forward"], result["backward"]]
    return {
        "seconds": sum(way["makespan_seconds"] for way in ways),
        "payload": sum(way["sent_bytes_by_level"][1] for way in ways),
    }
