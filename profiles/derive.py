"""Derives the shipped profiles from published measurements: `python3 profiles/derive.py` writes them anew.

The numbers below are copied from their sources; docs/simulator.md explains the derivation.
"""

import json
import sys
from pathlib import Path

TILE = 128  # rows and keys of a tile of the flash attention kernels
FLOPS = 4  # of a (query, key) pair in one head, for each number of the head: two products, forward
BACKWARD = 2.5  # operations of backward over those of forward: five products instead of two

# hao-ai-lab/distca, branch benchmark-0903 (dffac2a), d2/profiling/data/compute-attn-H100.csv: milliseconds of the
# forward of one causal document, 64 query heads of 128, by ranks among which its rows are dealt (head and tail).
DISTCA = "hao-ai-lab/distca branch benchmark-0903 (dffac2a)"
H100_LENGTHS = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
H100_HEADS = 64
H100_FORWARD_MS = {
    1: [0.06133, 0.1327, 0.355, 1.055, 3.707, 13.5, 51.89, 206.3],
    2: [0.04124, 0.08322, 0.2061, 0.5867, 1.894, 6.851, 26.34, 103.1],
    4: [0.03716, 0.064, 0.1392, 0.3628, 1.081, 3.617, 13.5, 51.69],
    8: [0.03498, 0.05952, 0.1112, 0.2553, 0.6847, 2.103, 7.182, 25.73],
}
H100_FLOOR_MS = {1: 0.02843, 2: 0.02091, 4: 0.02316, 8: 0.02545}  # the least of each column, from 64 tokens on

# FlashAttention-3, arXiv 2407.08608, figures 5 and 6: TFLOPS, head dimension 128, bf16; forward causal, backward not.
FA3 = "FlashAttention-3, arXiv 2407.08608"
FA3_LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]
FA3_TOKENS, FA3_HEADS = 16384, 16
FA3_FORWARD = [292, 423, 521, 579, 602, 616]
FA3_BACKWARD = [316, 424, 501, 542, 559, 561]

# DistCA, benchmarks/_250530_attn_mlp_pipeline/time_module/profile/A100-SXM-80GB/comp/mha.csv: milliseconds
# of one causal document, 64 heads of 128. Short rows carry a host overhead of 0.6 to 0.9 ms, here taken as below.
A100_LENGTHS = [2048, 4096, 8192, 16384, 32768, 65536]
A100_HEADS = 64
A100_FORWARD_MS = [1.57, 2.65, 7.27, 23.07, 83.11, 320.29]
A100_BACKWARD_MS = [2.26, 5.77, 17.57, 61.58, 232.96, 899.69]
A100_HOST_MS = {"forward": 0.75, "backward": 0.85}

# The same repository, benchmarks/_250818_crossnode_network/: all-gather of 2 ranks on 2 nodes, all 8 pairs at once.
CROSS_NODE_MIB = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
CROSS_NODE_MS = [0.17, 0.18, 0.31, 0.56, 1.01, 1.9, 3.59, 6.96, 13.84, 27.15, 53.77]

# FlexSP, PKU-DAIR/Hetu-Galvatron branch flexsp (b466689), solver constants of the 7B model (64 heads of 64, hidden size
# 4096, 32 layers, a GPT's 12 hidden^2 weights a layer) and tables of its cluster.
FLEXSP = "PKU-DAIR/Hetu-Galvatron branch flexsp (b466689)"
ALPHA1_MS = 5.128e-06  # of a token^2 of a causal document, all layers, forward and backward
ALPHA2_MS = 0.1839576  # of a token in everything else
LAYERS, HIDDEN = 32, 4096
FLEXSP_RATE = 6 * 12 * HIDDEN**2 * LAYERS / (ALPHA2_MS * 1e-3)  # operations a second of the token-wise layers

# Head dimensions beside the measured 128. A pair takes forward's products, FLOPS for each number of the head, and an
# exponential whatever the head, as long as the products of so many numbers. H100: 989 TFLOP/s and 3.9 T exponentials a
# second (FlashAttention-3, section 1); A100: 312 TFLOP/s, and 16 exponentials a cycle on 108 processors at 1.41 GHz.
MEASURED = 128
HEAD_DIMS = [64, 80, 96, 128, 192, 256]
H100_EXPONENTIALS = 989 / 3.9 / FLOPS
A100_EXPONENTIALS = 312 / (16 * 108 * 1.41e-3) / FLOPS

FULL = 2000  # blocks that fill a device: about 8 for each place that an H100 or A100 has for one
GRID = [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]


def rounded(x: float) -> float:
    """Four significant digits: more than the sources have."""
    return float(f"{x:.4g}")


Measured = tuple[int, float, float, int]  # rows, keys that they see in the mean, seconds of one head, blocks at once


def kernels(measured: list[Measured]) -> list[list[float]]:
    """Seconds of one head by rows and keys.

    A block, a tile of rows in one head, costs a start and so much a key. That holds where blocks fill the device, as
    those of a packed batch do: one small document alone leaves it idle, so such measurements are not used.
    """
    full = [(keys, seconds * TILE / rows) for rows, keys, seconds, blocks in measured if blocks >= FULL]
    start, of_key = fit(*map(list, zip(*full, strict=True)))
    return [[rounded(q / TILE * (start + of_key * k)) for k in GRID] for q in GRID]


def documents(lengths: list[int], milliseconds: list[float], heads: int, ranks: int = 1) -> list[Measured]:
    """A shard of a causal document of L tokens has L / 2 keys a row in the mean, and the rest of diagonal tiles."""
    return [
        (length // ranks, (length + TILE) / 2, ms * 1e-3 / heads, length // ranks // TILE * heads)
        for length, ms in zip(lengths, milliseconds, strict=True)
    ]


def h100_forward() -> list[list[float]]:
    """Whole documents and shards of them."""
    measured = []
    for ranks, milliseconds in H100_FORWARD_MS.items():
        kernel = [ms - H100_FLOOR_MS[ranks] for ms in milliseconds]
        measured += documents(H100_LENGTHS, kernel, H100_HEADS, ranks)
    return kernels(measured)


def fa3(rates: list[float], operations: float, keys_of_token: float) -> list[list[float]]:
    """From rates in TFLOPS: 16,384 tokens in documents of one length, 16 heads; keys_of_token: 1/2 causal, 1 full."""
    measured = []
    for length, rate in zip(FA3_LENGTHS, rates, strict=True):
        seconds = operations * 128 * length**2 * keys_of_token / (rate * 1e12)
        keys = length * keys_of_token + (TILE / 2 if keys_of_token < 1 else 0)
        measured.append((length, keys, seconds, FA3_TOKENS // TILE * FA3_HEADS))
    return kernels(measured)


def a100(milliseconds: list[float], host_ms: float) -> list[list[float]]:
    """Whole documents only."""
    return kernels(documents(A100_LENGTHS, [ms - host_ms for ms in milliseconds], A100_HEADS))


def fit(sizes: list[float], times: list[float]) -> tuple[float, float]:
    """The a and b of time = a + b size, by least squares of the relative error."""
    weights = [1 / t**2 for t in times]
    w, x, y, xx, xy = (
        sum(values)
        for values in zip(
            *((c, c * s, c * t, c * s * s, c * s * t) for c, s, t in zip(weights, sizes, times, strict=True)),
            strict=True,
        )
    )
    b = (w * xy - x * y) / (w * xx - x * x)
    return (y - b * x) / w, b


def times(head_dim: int, forward: dict, backward: dict, source: str) -> dict:
    """One entry of `attention`."""
    return {
        "source": source,
        "head_dim": head_dim,
        "dtypes": ["bf16", "f16"],
        "tile": TILE,
        "queries": forward.pop("queries", GRID),
        "keys": forward.pop("keys", GRID),
        "forward": forward,
        "backward": backward,
    }


def passes(operation_seconds: float, seconds: list[list[float]]) -> dict:
    """The times of one pass."""
    return {"operation_seconds": operation_seconds, "segment_seconds": 0, "seconds": seconds}


def derived(measured: dict, exponentials: float) -> list[dict]:
    """Entries of all head dimensions from that of 128: below it the exponentials stay, above it they hide."""

    def scaled(of_pass: dict, head_dim: int, exponentials: float) -> dict:
        below = (head_dim + exponentials) / (MEASURED + exponentials)
        factor = below if head_dim < MEASURED else head_dim / MEASURED
        return of_pass | {"seconds": [[rounded(factor * seconds) for seconds in row] for row in of_pass["seconds"]]}

    entries = []
    for head_dim in HEAD_DIMS:
        rule = (
            f"derived, not measured: 128's seconds x ({head_dim} + e) / (128 + e), e being the exponentials'"
            f" {exponentials:.0f} in forward, a {BACKWARD}th of it in backward"
            if head_dim < MEASURED
            else f"derived, not measured: 128's seconds x {head_dim} / 128, the same operations a second"
        )
        entries.append(
            measured
            if head_dim == MEASURED
            else measured
            | {
                "source": rule,
                "head_dim": head_dim,
                "forward": scaled(measured["forward"], head_dim, exponentials),
                "backward": scaled(measured["backward"], head_dim, exponentials / BACKWARD),
            }
        )
    return entries


def h100() -> dict:
    """A node of 8 H100-SXM-80GB."""
    forward = h100_forward()
    slower = BACKWARD * 222 / 199
    backward = [[rounded(slower * seconds) for seconds in row] for row in forward]
    latency_ms, ms_per_mib = fit(CROSS_NODE_MIB, CROSS_NODE_MS)
    network = rounded(2**20 / (ms_per_mib * 1e-3))
    return {
        "name": "h100-sxm",
        "about": "Nodes of 8 H100-SXM-80GB with NVLink, a network card for each",
        "sources": {
            "attention": f"{DISTCA} d2/profiling/data/compute-attn-H100.csv; 64 heads, launch floor taken off",
            "attention.backward": "derived: forward x 2.5 operations x 222/199, the A100's rates of the two at 128K",
            "memory": "assumed: 80 % of the 3.35 TB/s of NVIDIA's data sheet; 5 us a launch",
            "flops": "assumed: 60 % of the 989 TFLOP/s of NVIDIA's data sheet, bf16",
            "links[0]": f"{DISTCA} profile/*/comm/*.csv: latency of the send/recv fit (9.1 us + 3.012 us/MiB);"
            " bandwidth leaving a GPU in an all-to-all of 8, 128 MiB",
            "links[1]": f"{DISTCA} benchmarks/_250818_crossnode_network: fit of 2 to 2048 MiB; cards not named by the"
            " source, one for each GPU since all 8 pairs ran at once",
        },
        "attention": derived(
            times(128, passes(2.45e-05, forward), passes(2.45e-05, backward), "operation_seconds: mean of the floors"),
            H100_EXPONENTIALS,
        ),
        "memory_bytes_per_second": 2.68e12,
        "memory_operation_seconds": 5e-06,
        "forward_flops_per_second": 5.93e14,
        "backward_flops_per_second": 5.93e14,
        "ranks_per_node": 8,
        "links": [
            {"latency_seconds": 9.1e-06, "bytes_per_second": 2.929e11},
            {
                "latency_seconds": rounded(latency_ms * 1e-3),
                "bytes_per_second": network,
                "cards": 8,
                "card_bytes_per_second": network,
            },
        ],
    }


A100_LINKS = {
    "links[0]": f"{FLEXSP}: p2p inside a node, 2 GPUs; latency: fit of an all-to-all of 4 in {DISTCA}",
    "links[1]": f"{FLEXSP}: all-reduce of 2 strided GPUs on 2 nodes (one rank's share), of 16 on 2 nodes (the node's"
    " 400 Gb/s); latency assumed",
}


def a100_links() -> list[dict]:
    """Of FlexSP's cluster: nodes of 8 A100-40GB, InfiniBand of 400 Gb/s."""
    return [
        {"latency_seconds": 2.02e-05, "bytes_per_second": 1.63671e11},
        {"latency_seconds": 3e-05, "bytes_per_second": 8.13e9, "cards": 1, "card_bytes_per_second": 4.4682e10},
    ]


def h100_fa3() -> dict:
    """The same node with the kernels of FlashAttention-3."""
    node = h100()
    forward = fa3(FA3_FORWARD, FLOPS, 1 / 2)
    backward = fa3(FA3_BACKWARD, FLOPS * BACKWARD, 1)
    sources = {
        "attention": f"{FA3}, figures 5 and 6: causal forward, full backward; 16,384 tokens, 16 heads",
        "attention.operation_seconds": "assumed: as in h100-sxm",
    }
    del node["sources"]["attention"], node["sources"]["attention.backward"]
    return node | {
        "name": "h100-sxm-fa3",
        "about": "Nodes of 8 H100-SXM-80GB with NVLink, a network card for each, and FlashAttention-3",
        "sources": sources | node["sources"],
        "attention": derived(
            times(128, passes(2.45e-05, forward), passes(2.45e-05, backward), "see sources"), H100_EXPONENTIALS
        ),
    }


def a100_40gb() -> dict:
    """FlexSP's cluster with measured kernels."""
    return {
        "name": "a100-40gb-ib",
        "about": "Nodes of 8 A100-40GB with NVLink, InfiniBand of 400 Gb/s a node",
        "sources": {
            "attention": f"{DISTCA} A100-SXM-80GB/comp/mha.csv, 64 heads, host overhead of 0.75 and 0.85 ms taken off",
            "attention.operation_seconds": "assumed: 25 us, as on H100",
            "memory": "assumed: 80 % of the 1.555 TB/s of NVIDIA's data sheet; 5 us a launch",
            "flops": f"{FLEXSP}: the 7B model's alpha2 for 6 x 12 x 4096^2 x 32 operations a token",
            **A100_LINKS,
        },
        "attention": derived(
            times(
                128,
                passes(2.5e-05, a100(A100_FORWARD_MS, A100_HOST_MS["forward"])),
                passes(2.5e-05, a100(A100_BACKWARD_MS, A100_HOST_MS["backward"])),
                "see sources",
            ),
            A100_EXPONENTIALS,
        ),
        "memory_bytes_per_second": 1.244e12,
        "memory_operation_seconds": 5e-06,
        "forward_flops_per_second": rounded(FLEXSP_RATE),
        "backward_flops_per_second": rounded(FLEXSP_RATE),
        "ranks_per_node": 8,
        "links": a100_links(),
    }


def flexsp_7b() -> dict:
    """The constants of FlexSP's solver and nothing else: every pair and every token costs the same everywhere."""
    pair = (
        2 * ALPHA1_MS * 1e-3 / LAYERS / (HIDDEN / 128)
    )  # of a layer, of a head of 128; a causal token^2 is half a pair

    def constant(head_dim: int) -> dict:
        seconds = pair * head_dim / 128 * TILE * TILE
        return {
            "source": "alpha1; 2 of 7 parts in forward"
            + ("" if head_dim == 64 else "; derived, not measured: the same operations a second as 64"),
            "head_dim": head_dim,
            "dtypes": ["bf16", "f16"],
            "tile": 1,
            "queries": [TILE],
            "keys": [TILE],
            "forward": passes(0, [[rounded(seconds / (1 + BACKWARD))]]),
            "backward": passes(0, [[rounded(seconds * BACKWARD / (1 + BACKWARD))]]),
        }

    return {
        "name": "flexsp-7b",
        "about": "The 7B constants of FlexSP's solver (64 A100-40GB): no launches, no tiles, no slow short kernels",
        "sources": {
            "attention": f"{FLEXSP}: alpha1 = 5.128e-6 ms a token^2 of a causal document, 32 layers, hidden size 4096",
            "memory": "none in the source: as a100-40gb-ib, launches free",
            "flops": f"{FLEXSP}: alpha2 = 0.1839576 ms a token for 6 x 12 x 4096^2 x 32 operations",
            **A100_LINKS,
        },
        "attention": [constant(head_dim) for head_dim in HEAD_DIMS],
        "memory_bytes_per_second": 1.244e12,
        "memory_operation_seconds": 0,
        "forward_flops_per_second": rounded(FLEXSP_RATE),
        "backward_flops_per_second": rounded(FLEXSP_RATE),
        "ranks_per_node": 8,
        "links": a100_links(),
    }


def text(value: object, indent: str = "") -> str:
    """JSON with a line for each key and each row of a table."""
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], list | dict):
        return "[\n" + ",\n".join(inner + text(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value)


def main() -> int:
    """Writes the profiles; with --check says which of them are not as derived."""
    stale = []
    for profile in (h100(), h100_fa3(), a100_40gb(), flexsp_7b()):
        path = Path(__file__).parent / f"{profile['name']}.json"
        derived = text(profile) + "\n"
        if "--check" in sys.argv:
            stale += [path.name] if path.read_text() != derived else []
        else:
            path.write_text(derived)
    print("\n".join(f"{name} is not what derive.py makes" for name in stale), end="")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
