"""Compares Evenspan with other systems of sequence parallelism, on processes of this machine (README.md).

Run: make bench-peers, or scripts/bench_peers.sh with the arguments of this program; --help lists them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Before any process is started: freed memory keeps its pages, as evenspan train has it; one thread a rank; Gloo on lo.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


def arguments(words: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="bench_peers.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three batches, one repetition, no count on 4 and 8 ranks")
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="steps of each system that are timed")
    parser.add_argument("--batches", metavar="NAME,...", help="only these batches, such as 'one long,odd'")
    parser.add_argument("--systems", metavar="TEXT,...", help="only systems whose name contains one of these")
    parser.add_argument("--dtypes", metavar="NAME,...", default="bf16,f32", help="bf16, f32 (default: both)")
    parser.add_argument(
        "--shapes", choices=("default", "all"), default="all", help="head shapes of the long-tailed batch"
    )
    parser.add_argument("--ranks", type=int, default=2, metavar="P", help="processes that are timed")
    parser.add_argument(
        "--count-ranks", metavar="P,...", default="4,8", help="numbers of ranks for counts without times; '' for none"
    )
    parser.add_argument(
        "--calibrate",
        type=float,
        default=45,
        metavar="SECONDS",
        help="of calibration for the modes with a profile; 0 leaves them out",
    )
    parser.add_argument("--llama", action="store_true", help="also a training step of a small Hugging Face Llama")
    parser.add_argument("--write", type=Path, default=ROOT / "build/peers", metavar="DIR", help="folder of the reports")
    found = parser.parse_args(words)
    if found.repetitions < 1 or found.ranks < 2:
        parser.error(
            f"repetitions must be at least 1 and ranks at least 2, they are {found.repetitions}, {found.ranks}"
        )
    if found.quick:
        found.repetitions, found.count_ranks = 1, ""
        found.batches = found.batches or "eight equal,long-tailed,odd"
        found.shapes, found.calibrate = "default", min(found.calibrate, 5)
    return found


def main() -> None:
    """Measure and write the reports."""
    options = arguments(sys.argv[1:])
    os.environ.update(ENVIRONMENT)
    paths = [str(HERE), str(HERE / "standin"), str(ROOT / "build/bench")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    import harness

    harness.run(options)


if __name__ == "__main__":
    main()
