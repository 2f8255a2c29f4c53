"""`evenspan explain`: what it says of small batches, checked by hand, and of large ones; and bad input."""

import json
from pathlib import Path

import pytest
from program import ROOT, Run

PROLONG = ROOT / "bench" / "data" / "prolong_20000.txt"
PARTS = [
    "lower_bound_seconds",
    "kernel_seconds",
    "launch_seconds",
    "copy_seconds",
    "message_seconds",
    "imbalance_seconds",
]


def explain(evenspan: Run, lengths: list[int], *words: object) -> tuple[str, dict]:
    """What is printed, and the JSON."""
    done = evenspan("explain", "--lengths", "-", *words, "--json", "-", stdin="".join(f"{n}\n" for n in lengths))
    assert done.returncode == 0, done.stderr
    return done.stderr, json.loads(done.stdout)


def refused(evenspan: Run, *words: object, stdin: str = "500\n") -> str:
    done = evenspan("explain", *words, stdin=stdin)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("evenspan explain: ["), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_equal_documents_stay_whole(evenspan: Run) -> None:
    text, got = explain(evenspan, [4000] * 4, "--ranks", 4)
    assert "4 documents of 4,000 tokens: whole on a rank each; nothing sent" in text
    assert "no single document is too much for a rank" in text and "It waits" not in text
    assert got["groups"][0]["spread"] == "whole" and got["groups"][0]["least_ranks_of_work"] == 1
    assert got["sent_bytes"] == got["bound"]["key_value_bytes"] == 0
    assert got["step"]["imbalance_seconds"] == pytest.approx(0, abs=1e-9)
    assert got["step"]["exposed_seconds"] == pytest.approx(0, abs=1e-9)


def test_a_document_alone_is_cut_over_all_ranks(evenspan: Run) -> None:
    words = ["--ranks", 4, "--ranks-per-node", 2, "--strategy", "sequence_aware"]
    text, got = explain(evenspan, [40000], *words)
    assert "1 document of 40,000 tokens: cut over 4 ranks of 2 nodes, since its work is that of 4.00 ranks" in text
    assert "The strategy is sequence_aware." in text
    assert got["bound"]["binding"] == "work"
    assert got["key_value_bytes"] >= got["bound"]["key_value_bytes"] > 0


def test_one_document_on_one_of_two_ranks_is_imbalance(evenspan: Run) -> None:
    text, got = explain(evenspan, [8192], "--ranks", 2, "--strategy", "local")
    step = got["step"]
    assert step["imbalance_seconds"] == pytest.approx(step["step_seconds"] / 2)
    assert "What limits it most, above the bound: computing of the busiest rank above the mean." in text


def test_uniform_strategies_and_heads(evenspan: Run) -> None:
    text, _ = explain(evenspan, [5000, 100], "--ranks", 4, "--strategy", "zigzag")
    assert "2 documents of 100 to 5,000 tokens: cut over 4 ranks, since zigzag spreads every document" in text
    text, _ = explain(evenspan, [5000, 100], "--ranks", 4, "--strategy", "ulysses")
    assert "2 documents of 100 to 5,000 tokens: split by heads over 4 ranks, since ulysses spreads" in text


@pytest.mark.parametrize("strategy", ["auto", "ring", "usp", "sequence_aware", "hierarchical", "mixed"])
def test_figures_add_up(evenspan: Run, strategy: str) -> None:
    lengths = [30000, 8000, 2000, 700, 700, 64]
    words = ["--ranks", 8, "--ranks-per-node", 4, "--strategy", strategy]
    _, got = explain(evenspan, lengths, *words)
    step = got["step"]
    parts = [step[part] for part in [*PARTS, "exposed_seconds"]]
    assert min(parts) >= -1e-12
    assert sum(parts) == pytest.approx(step["step_seconds"])
    assert sum(group["documents"] for group in got["groups"]) == len(lengths)
    assert sum(group["tokens"] for group in got["groups"]) == sum(lengths)
    assert sum(group["sent_bytes"] for group in got["groups"]) == got["sent_bytes"]
    busiest = got["busiest"]
    computing = (
        busiest["attention_seconds"] + busiest["token_seconds"] + busiest["copy_seconds"] + busiest["message_seconds"]
    )
    assert computing == pytest.approx(step["step_seconds"] - step["exposed_seconds"])


def test_the_step_is_that_of_simulate(evenspan: Run) -> None:
    _, got = explain(evenspan, [9000, 700, 64], "--ranks", 8)
    done = evenspan(
        "simulate", "--lengths", "-", "--ranks", 8, "--strategy", "auto", "--json", "-", stdin="9000\n700\n64\n"
    )
    simulated = json.loads(done.stdout)
    assert got["step"]["step_seconds"] == simulated["strategies"][0]["step_seconds"]
    assert got["step"]["lower_bound_seconds"] == simulated["lower_bound_seconds"]
    assert got["strategy"] == simulated["auto"]["strategy"]
    assert got["candidates"] == simulated["auto"]["candidates"]


def test_ten_thousand_documents_are_a_screen(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "lengths.txt").write_text("\n".join(PROLONG.read_text().split()[:10000]) + "\n")
    done = evenspan("explain", "--lengths", "lengths.txt", "--ranks", 32, "--strategy", "sequence_aware")
    assert done.returncode == 0, done.stderr
    assert "10,000 documents" in done.stdout
    assert done.stdout.count("\n") < 45


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranks", 2], "--lengths is missing; see evenspan explain --help"),
        (["--lengths", "-"], "--ranks or --topology is missing; see evenspan explain --help"),
        (["--lengths", "-", "--ranks", 2, "--strategy", "rign"], "did you mean 'ring'?"),
        (["--lengths", "-", "--ranks", 2, "--stripe-tokens", 8], "no effect with the strategy auto"),
        (["--lengths", "-", "--ranks", 2, "--head-dim", 72], "h100-sxm has no attention times of head dimension 72"),
        (["--lengths", "-", "--ranks", 2, "--dtype", "f32"], "of head dimension 128 in f32; it has 64 in bf16"),
        (["--lengths", "-", "--ranks", 2, "--profile", "h100"], "did you mean 'h100-sxm'?"),
        (
            ["--lengths", "-", "--ranks", 2, "--memory-budget", "1KiB"],
            "no candidate of auto keeps the memory budget of 1024 bytes; the least is ",
        ),
        (
            ["--lengths", "-", "--ranks", 2, "--memory-budget", "1KiB", "--strategy", "ring"],
            "bytes of arena and saved activations on rank",
        ),
    ],
)
def test_bad_arguments(evenspan: Run, tmp_path: Path, words: list, message: str) -> None:
    assert message in refused(evenspan, *words)
    assert list(tmp_path.iterdir()) == []


def test_bad_files(evenspan: Run, tmp_path: Path) -> None:
    assert 'line 2 holds "abc"' in refused(evenspan, "--lengths", "-", "--ranks", 2, stdin="5\nabc\n")
    (tmp_path / "topology.json").write_text('{"ranks": 12, "nodes": 2, "ranks_per_node": 8}')
    assert "2 x 8 are not 12" in refused(evenspan, "--lengths", "-", "--topology", "topology.json")
