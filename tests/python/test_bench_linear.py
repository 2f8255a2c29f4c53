"""bench/linear: what it makes of its findings. Its systems are checked by itself, before it times them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "linear"))
import bench_linear

FINDINGS: dict[int, dict[str, list[float] | str]] = {
    512: {"evenspan all_gather": [0.004, 0.002, 0.003], "other": [0.001, 0.002, 0.003], "wrong": "wrong by 0.5"},
    1024: {"evenspan all_gather": [0.004], "other": [0.008]},
}


def test_the_table_has_least_and_median() -> None:
    assert bench_linear.table(FINDINGS).splitlines()[2:] == [
        "| 512 | 2.0 (3.0) | 1.0 (2.0) | wrong by 0.5 |",
        "| 1,024 | 4.0 (4.0) | 8.0 (8.0) |  |",
    ]


def test_crossovers_are_where_it_stays_ahead() -> None:
    other, wrong = bench_linear.crossovers(FINDINGS)
    assert other == "- evenspan all_gather ahead of other from 1,024 tokens on; other took 0.67, 2.00 times as long"
    assert "at no size" in wrong


def test_decays_are_logarithms_of_decays() -> None:
    decays = bench_linear.decays()
    assert (decays < 0).all() and decays[0] == pytest.approx(-0.5)
