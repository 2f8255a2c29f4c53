"""Published measurements beside what the simulator says: the tables of docs/validation.md.

`python bench/validation.py` prints them, `--write` puts them into the page, between its markers. Nothing in them is
measured here: every run of one version gives the same numbers.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(os.environ.get("EVENSPAN_BIN", ROOT / "build" / "bin" / "evenspan"))
PAGE = ROOT / "docs" / "validation.md"
PUBLISHED = json.loads((ROOT / "bench/data/published.json").read_text())

MIB = 1 << 20
MAGI_BATCHES = 3
FLEXSP_BATCHES = 10
SMALL, LARGE = [8, 16], [32, 64]  # GPUs of MagiAttention's runs: rings take a minute on the large ones

Rows = Iterator[list[str]]


def simulate(lengths: list[int], ranks: int, strategy: str, **options: object) -> dict:
    """Return what `evenspan simulate` says of one strategy, with `auto` and the bound beside it."""
    words = ["simulate", "--lengths", "-", "--ranks", ranks, "--strategy", strategy, "--json", "-"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    done = subprocess.run(
        [PROGRAM, *map(str, words)], input="\n".join(map(str, lengths)), text=True, capture_output=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    got = json.loads(done.stdout)
    return {**got["strategies"][0], "auto": got.get("auto"), "bound": got["lower_bound_seconds"]}


def error(simulated: float, measured: float) -> str:
    """Relative, signed."""
    return f"{simulated / measured - 1:+.1%}"


def attention() -> Rows:
    """Kernels of one document on one GPU."""
    yield ["GPU, pass", "heads / kv heads", "tokens", "measured ms", "simulated ms", "error"]
    h100, a100 = PUBLISHED["h100_attention_forward"], PUBLISHED["a100_attention"]
    cases = [("H100 forward", "h100-sxm", heads, h100["tokens"], ms) for heads, ms in h100["milliseconds"].items()]
    for way in ("forward", "backward"):
        by_heads = a100[f"{way}_milliseconds"].items()
        cases += [(f"A100 {way}", "a100-40gb-ib", f"{n}/{n}", a100["tokens"], ms) for n, ms in by_heads]
    for name, profile, heads, tokens, milliseconds in cases:
        num_heads, num_kv_heads = heads.split("/")
        way = name.split()[1]
        for length, measured in zip(tokens, milliseconds, strict=True):
            got = simulate([length], 1, "local", profile=profile, heads=num_heads, kv_heads=num_kv_heads)
            ms = got[way]["makespan_seconds"] * 1e3
            yield [name, heads, f"{length:,}", f"{measured:.4g}", f"{ms:.4g}", error(ms, measured)]


def transfer_seconds(tokens: int, ranks: int, strategy: str, **options: object) -> float:
    """Return how long messages of a layer's forward are under way, at most on a rank."""
    got = simulate([tokens], ranks, strategy, **options)
    return max(rank["transfer_seconds"] for rank in got["forward"]["ranks"])


def interpolated(sizes: list[float], times: list[float], size: float) -> float:
    """Return the time of a size between two measured ones."""
    for (a, s), (b, t) in itertools.pairwise(zip(sizes, times, strict=True)):
        if a <= size <= b:
            return s + (t - s) * (size - a) / (b - a)
    raise ValueError(f"[validation] sizes are in {sizes[0]}..{sizes[-1]}, {size} is not")


def collectives() -> Rows:
    """All-gathers and all-to-alls. A layer of Ulysses does two: one of queries, keys and values, one of outputs."""
    yield ["operation", "GPUs", "MiB of a GPU", "measured us", "simulated us", "error"]
    table = PUBLISHED["h100_collectives"]
    mib = [kib / 1024 for kib in table["kib"]]
    for ranks in (2, 4, 8):
        times = table["all_gather_microseconds"][str(ranks)]
        for size in (1, 8, 32, 128):
            tokens = size * MIB // 512  # of one kv head: a key and a value of 128 numbers of 2 bytes
            got = transfer_seconds(tokens, ranks, "all_gather", heads=1, kv_heads=1) * 1e6
            measured = times[mib.index(size)]
            yield ["H100 all-gather", str(ranks), str(size), str(measured), f"{got:.0f}", error(got, measured)]
    for ranks in (2, 4, 8):
        times = table["all_to_all_microseconds"][str(ranks)]
        for size in (1, 4, 16, 32):
            tokens = size * MIB // 256
            got = transfer_seconds(tokens, ranks, "ulysses", heads=ranks, kv_heads=ranks) * 1e6
            measured = interpolated(mib, times, 3 * size) + interpolated(mib, times, size)
            words = ["H100 all-to-all", str(ranks), f"{3 * size} + {size}", f"{measured:.0f}"]
            yield [*words, f"{got:.0f}", error(got, measured)]
    across = PUBLISHED["all_gather_across_2_nodes"]
    for size, milliseconds in zip(across["local_mib"], across["milliseconds"], strict=True):
        if size in (2, 8, 32, 128):
            tokens = 2 * size * MIB // 512
            got = transfer_seconds(tokens, 2, "all_gather", heads=1, kv_heads=1, ranks_per_node=1) * 1e6
            measured = milliseconds * 1e3
            words = ["all-gather over 2 nodes", "2", str(2 * size), f"{measured:.0f}"]
            yield [*words, f"{got:.0f}", error(got, measured)]


def rates() -> Rows:
    """All-to-alls of FlexSP's cluster."""
    active, other = PUBLISHED["a100_all_to_all"]["mib_per_millisecond"].values()
    yield ["GPUs", "published MiB/ms, two settings", "simulated MiB/ms"]
    for ranks in (2, 4, 8, 16, 32, 64):
        size = 32  # MiB of a GPU's queries
        options = {"profile": "a100-40gb-ib", "heads": ranks, "kv_heads": ranks}
        seconds = transfer_seconds(size * MIB // 256, ranks, "ulysses", **options)
        rate = 4 * size / (seconds * 1e3)
        yield [str(ranks), f"{active[str(ranks)]:g}, {other[str(ranks)]:g}", f"{rate:.2f}"]


def magi_batch(ranks: int, seed: int) -> list[int]:
    """Draw a batch as MagiAttention's benchmark packs one: 8,192 tokens a GPU, no document above a quarter."""
    tokens = 8192 * ranks
    points = PUBLISHED["magi_attention"]["length_distribution"]["points"]
    generator = random.Random(seed)
    batch: list[int] = []
    while (left := tokens - sum(batch)) > 0:
        percent = generator.random() * 100
        (a, p), (b, q) = next(pair for pair in itertools.pairwise(points) if percent <= pair[1][1])
        batch.append(min(int(a + (b - a) * (percent - p) / (q - p)) + 1, tokens // 4, left))
    return batch


@functools.cache
def magi_rates(ranks: int, strategy: str) -> dict[str, float]:
    """TFLOPS a GPU, forward and backward, over all batches; and work, max over mean, in the mean."""
    flops, seconds, work = 0.0, {"forward": 0.0, "backward": 0.0}, []
    for seed in range(MAGI_BATCHES):
        lengths = magi_batch(ranks, seed)
        flops += 4 * sum(n * (n + 1) // 2 for n in lengths) * 64 * 128 / ranks / 1e12
        got = simulate(lengths, ranks, strategy, profile="h100-sxm-fa3", heads=64, kv_heads=8)
        work.append(got["work_max_over_mean"])
        for way in seconds:
            seconds[way] += got[way]["makespan_seconds"]
    found = {"forward": flops / seconds["forward"], "backward": 2.5 * flops / seconds["backward"]}
    return {**found, "work": statistics.mean(work)}


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation; equal values share the mean of their ranks."""

    def ranks(values: list[float]) -> list[float]:
        ordered = sorted(values)
        return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]

    return statistics.correlation(ranks(a), ranks(b))


# MagiAttention's name of a system and the strategy that does the same.
COUNTERPARTS = {"ulysses": "ulysses", "ring_p2p": "ring", "ring_allgather": "zigzag_all_gather", "usp": "usp"}


def magi(all_gpus: list[int]) -> Rows:
    """MagiAttention's benchmark: published / simulated."""
    names = [f"{name} / {strategy}" for name, strategy in COUNTERPARTS.items()]
    planned = ["magi_native / auto", "magi_a2av / sequence_aware", "- / hierarchical"]
    yield ["GPUs, pass", *names, *planned, "rank correlation of four", "with auto"]
    published = PUBLISHED["magi_attention"]
    for ranks, way in itertools.product(all_gpus, ("forward", "backward")):
        theirs = [published[way][name][str(ranks)] for name in (*COUNTERPARTS, "magi_native", "magi_a2av")]
        strategies = [*COUNTERPARTS.values(), "auto", "sequence_aware", "hierarchical"]
        # Tenths, so that the order is that of the table.
        ours = [round(magi_rates(ranks, strategy)[way], 1) for strategy in strategies]
        cells = [f"{a} / {b:.1f}" for a, b in zip([*theirs, "-"], ours, strict=True)]
        correlations = [f"{spearman(theirs[:n], ours[:n]):.2f}" for n in (4, 5)]
        yield [f"{ranks}, {way}", *cells, *correlations]


def balance(all_gpus: list[int]) -> Rows:
    """Work of the slowest rank in these batches."""
    strategies = [*COUNTERPARTS.values(), "sequence_aware", "hierarchical"]
    yield ["GPUs", *strategies]
    for ranks in all_gpus:
        yield [str(ranks), *(f"{magi_rates(ranks, strategy)['work']:.2f}" for strategy in strategies)]


def micro_batches(documents: list[int], tokens: int) -> list[list[int]]:
    """As few as hold the documents, longest first into the one with the fewest tokens."""
    parts: list[list[int]] = [[] for _ in range(-(-sum(documents) // tokens))]
    for length in sorted(documents, reverse=True):
        min(parts, key=sum).append(length)
    return parts


def flexsp() -> Rows:
    """Steps of 512 documents of Wikipedia, on FlexSP's cluster by FlexSP's constants."""
    setting = PUBLISHED["flexsp"]
    lengths = [-(-int(n) // 128) * 128 for n in (ROOT / "bench/data/wikipedia_20000.txt").read_text().split()]
    lengths = [n for n in lengths if n <= setting["context_tokens"]]
    size = setting["documents"]
    gpt = {
        "hidden_size": 4096,
        "intermediate_size": 8 * 4096 // 3,  # gated: as many weights as the GPT's
        "num_hidden_layers": 32,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "head_dim": 64,
        "vocab_size": 0,
    }
    yield ["step", "tokens", "micro-batches", "ulysses s", "hierarchical s", "auto s", "bound s", "auto over ulysses"]
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(gpt))
        for step in range(setting["first_batch"], setting["first_batch"] + FLEXSP_BATCHES):
            documents = lengths[size * step : size * (step + 1)]
            parts = micro_batches(documents, 64 * setting["tokens_per_gpu"])
            fixed = setting["beta1_seconds"] * len(parts)
            seconds = []
            for strategy in ("ulysses", "hierarchical", "auto"):
                got = [simulate(part, 64, strategy, profile="flexsp-7b", model=path) for part in parts]
                seconds.append(fixed + sum(part["step_seconds"] for part in got))
            seconds.append(fixed + sum(part["bound"] for part in got))
            totals.append(seconds)
            cells = [f"{value:.2f}" for value in seconds]
            yield [str(step), f"{sum(documents):,}", str(len(parts)), *cells, f"{seconds[0] / seconds[2]:.2f}"]
    means = [statistics.mean(column) for column in zip(*totals, strict=True)]
    yield ["mean", "", "", *(f"{value:.2f}" for value in means), f"{means[0] / means[2]:.2f}"]
    published = [setting["seconds"][name] for name in ("deepspeed_ulysses_static", "flexsp_batchada", "flexsp")]
    yield ["published", "", "", *map(str, published), "", f"{setting['printed_speedup']:.2f}"]


def linear_model(num_layers: int) -> dict[str, object]:
    """Return the shape of Linear-Llama3-1B: its config, with a diagonal gate in every layer."""
    return {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "vocab_size": 128256,
        "layer_types": ["gla"] * num_layers,
        "linear_num_heads": 16,
        "linear_key_dim": 128,
        "linear_value_dim": 128,
    }


def scans() -> Rows:
    """States between ranks that all reach each other alike; a token a rank, so that little else takes time."""
    yield ["GPUs", "all-gather ms, published", "simulated", "All-Scan ms, published", "simulated"]
    published = PUBLISHED["zeco"]
    gathers, scans = published["all_gather_milliseconds"], published["all_scan_milliseconds"]
    # Two constants: what a state takes to send, of the gather on 256, and the latency, of the scan on 256.
    state_bytes = 16 * 128 * 128 * 4
    bandwidth = state_bytes / (gathers["256"] * 1e-3 / 255)
    with tempfile.TemporaryDirectory() as folder:
        model, topology = Path(folder) / "config.json", Path(folder) / "topology.json"
        model.write_text(json.dumps(linear_model(1)))
        for ranks in map(int, gathers):
            level = {"group_size": ranks, "latency_seconds": SCAN_LATENCY, "bytes_per_second": bandwidth}
            topology.write_text(json.dumps({"ranks": ranks, "levels": [level]}))
            cells = []
            for transport, times in (("all_gather", gathers), ("pipelined", scans)):
                # As many tokens as ranks: one on each, in order.
                got = simulate_layer(ranks, transport, model, strategy="sequence_aware", topology=topology)
                cells += [f"{times[str(ranks)]:g}", f"{got['forward']['makespan_seconds'] * 1e3:.3g}"]
            yield [str(ranks), *cells]


def simulate_layer(tokens: int, transport: str, model: Path, **options: object) -> dict:
    """Return what one linear layer of one document takes."""
    words = ["simulate", "--lengths", "-", "--profile", "a100-40gb-ib", "--json", "-"]
    for name, value in {"model": model, "transport": transport, **options}.items():
        words += [f"--{name.replace('_', '-')}", value]
    done = subprocess.run([PROGRAM, *map(str, words)], input=f"{tokens}\n", text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    got = json.loads(done.stdout)
    return {**got["strategies"][0]["linear"][0], "levels": got["levels"]}


def lasp2() -> Rows:
    """One layer on 64 GPUs, when all ranks begin it together."""
    yield ["states or keys and values", "forward ms", "backward ms", "all-gather over it", "published"]
    ranks, tokens = 64, 2048 * 1024
    published = PUBLISHED["lasp2"]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "config.json"
        model.write_text(json.dumps(linear_model(1)))
        times = {}
        for transport in ("all_gather", "ring", "pipelined", "two_level", "logarithmic"):
            got = simulate_layer(tokens, transport, model, strategy="all_gather", ranks=ranks)
            times[transport] = [got[way]["makespan_seconds"] * 1e3 for way in ("forward", "backward")]
        # Keys and values around a ring, gradients back in float32, behind the local part.
        link = got["levels"][-1]
        key_value = 2 * tokens // ranks * 16 * 128 * 2 / link["bytes_per_second"] + link["latency_seconds"]
        times["keys and values around a ring"] = [(ranks - 1) * key_value * 1e3, (ranks - 1) * 3 * key_value * 1e3]
    for name, (forward, backward) in times.items():
        over = (forward + backward) / sum(times["all_gather"])
        theirs = {"ring": published["over_lasp"], "keys and values around a ring": published["over_ring"]}.get(name, "")
        yield [name, f"{forward:.2f}", f"{backward:.2f}", f"{over:.2f}", str(theirs)]


SCAN_LATENCY = 2e-6

TABLES: dict[str, Callable[[], Rows]] = {
    "attention": attention,
    "collectives": collectives,
    "rates": rates,
    "magi-small": lambda: magi(SMALL),
    "magi-large": lambda: magi(LARGE),
    "balance-small": lambda: balance(SMALL),
    "balance-large": lambda: balance(LARGE),
    "flexsp": flexsp,
    "scans": scans,
    "lasp2": lasp2,
}


def markdown(rows: Rows) -> str:
    """Return a table."""
    header, *lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([header, "|" + "---|" * (header.count("|") - 1), *lines]) + "\n"


def in_page(name: str, page: str) -> re.Match[str]:
    """Find a table of the page, between its markers."""
    found = re.search(rf"(?<=<!-- table {name} -->\n).*?(?=<!-- end -->)", page, re.DOTALL)
    if found is None:
        raise ValueError(f"[validation] {PAGE.name} has a place for each table, it has none for {name}")
    return found


def main() -> int:
    """Print tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; all by default")
    parser.add_argument("--write", action="store_true", help=f"write them into docs/{PAGE.name}")
    given = parser.parse_args()
    if unknown := set(given.tables) - TABLES.keys():
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for name in given.tables or TABLES:
        table = markdown(TABLES[name]())
        if given.write:
            page = PAGE.read_text()
            place = in_page(name, page)
            PAGE.write_text(page[: place.start()] + table + page[place.end() :])
        else:
            print(f"{name}\n\n{table}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
