"""The benchmark of peers without the peers: the kernel of the stand-in, the exact results, and the layouts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import evenspan
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in ("build/bench", "bench/peers/standin", "bench/peers"):
    sys.path.insert(0, str(ROOT / folder))
import evenspan_peers_kernel as kernel  # noqa: E402
import harness  # noqa: E402
import layouts  # noqa: E402
import page  # noqa: E402
import pool  # noqa: E402
import reference  # noqa: E402
import report  # noqa: E402
from batches import Batch, Shape, batches, lengths_by_name, tensors  # noqa: E402
from flash_attn import flash_attn_func, flash_attn_interface, flash_attn_varlen_func  # noqa: E402
from systems.evenspan_modes import Evenspan  # noqa: E402

LIMITS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2}
# Rows and keys of documents: square, more keys, fewer keys, none of either; neighbours alike and not.
DOCUMENTS = {
    "equal": [(5, 5)] * 4,
    "unequal": [(7, 7), (1, 1), (40, 40), (3, 3), (3, 3)],
    "more keys": [(4, 9), (4, 9), (1, 30), (8, 8)],
    "fewer keys": [(9, 4), (9, 4), (6, 6)],
    "empty": [(0, 0), (3, 0), (3, 0), (0, 5), (6, 6), (0, 0)],
}


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend by matrix products, [rows, heads, dim]; causal is aligned to the last key. Rows without a key are 0."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
    scores = q.transpose(0, 1) @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    if causal:
        rows, keys = scores.shape[1:]
        hidden = torch.arange(keys) > torch.arange(rows).unsqueeze(1) + keys - rows
        scores = scores.masked_fill(hidden, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.clamp(min=-1e30).unsqueeze(-1)).exp()
    return (weights @ v).transpose(0, 1), lse


def expected(
    documents: list[tuple[int, int]], tensors: list[torch.Tensor], causal: bool
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return output, lse [heads, rows] and the three gradients in float64."""
    q, k, v, gradient = (x.double() for x in tensors)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    parts = zip(q.split([a for a, _ in documents]), *(x.split([b for _, b in documents]) for x in (k, v)), strict=True)
    found = [attention(*part, causal) for part in parts]
    output, lse = torch.cat([o for o, _ in found]), torch.cat([x for _, x in found], 1)
    return output, lse, torch.autograd.grad(output, inputs, gradient)


def drawn(rows: int, keys: int, heads: int, kv_heads: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(rows + 7 * keys)
    return [
        torch.randn(n, h, 16).to(dtype) for n, h in ((rows, heads), (keys, kv_heads), (keys, kv_heads), (rows, heads))
    ]


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found.double(), wanted, atol=LIMITS[dtype], rtol=LIMITS[dtype])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_varlen(name: str, causal: bool, heads: tuple[int, int], dtype: torch.dtype) -> None:
    documents = DOCUMENTS[name]
    rows, keys = (sum(d[i] for d in documents) for i in range(2))
    tensors = drawn(rows, keys, *heads, dtype)
    q, k, v, gradient = tensors
    cuts = [layouts.cu_seqlens([d[i] for d in documents]) for i in range(2)]
    output, lse, gradients = expected(documents, tensors, causal)
    found, found_lse, _, _ = flash_attn_interface._flash_attn_varlen_forward(q, k, v, *cuts, 40, 40, 0.0, None, causal)
    close(found, output, dtype)
    close(found_lse, lse, dtype)

    # Gradients go into views of larger tensors, over what is there.
    wide = [torch.full((x.shape[0], x.shape[1] + 2, x.shape[2]), 7.0, dtype=dtype) for x in (q, k, v)]
    own = [x[:, 1:-1] for x in wide]
    arguments = (gradient, q, k, v, found, found_lse, *own, *cuts, 40, 40, 0.0, None, causal)
    flash_attn_interface._flash_attn_varlen_backward(*arguments)
    for view, wanted, whole in zip(own, gradients, wide, strict=True):
        close(view, wanted, dtype)
        assert (whole[:, 0] == 7).all() and (whole[:, -1] == 7).all()


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("rows", "keys", "causal"), [(9, 9, True), (9, 5, False), (5, 9, True), (9, 5, True)])
def test_batch(rows: int, keys: int, causal: bool, dtype: torch.dtype) -> None:
    tensors = drawn(3 * rows, 3 * keys, 4, 2, dtype)
    output, _, gradients = expected([(rows, keys)] * 3, tensors, causal)
    q, k, v, gradient = (x.unflatten(0, (3, -1)).requires_grad_() for x in tensors)
    found = flash_attn_func(q, k, v, causal=causal)
    close(found.flatten(0, 1), output, dtype)
    for x, wanted in zip(torch.autograd.grad(found, (q, k, v), gradient), gradients, strict=True):
        close(x.flatten(0, 1), wanted, dtype)


def test_what_the_stand_in_lacks_is_refused() -> None:
    q, k, v, _ = drawn(4, 4, 2, 2, torch.float32)
    cuts = layouts.cu_seqlens([4])
    with pytest.raises(NotImplementedError):
        flash_attn_varlen_func(q, k, v, cuts, cuts, 4, 4, window_size=(2, 0))
    with pytest.raises(RuntimeError, match="scale"):
        flash_attn_varlen_func(q, k, v, cuts, cuts, 4, 4, softmax_scale=1.0)
    with pytest.raises(RuntimeError, match="0 to the 4 rows"):
        flash_attn_varlen_func(q, k, v, layouts.cu_seqlens([3]), cuts, 4, 4)


def test_pairs_are_counted() -> None:
    documents = DOCUMENTS["more keys"]
    rows, keys = (sum(d[i] for d in documents) for i in range(2))
    q, k, v, gradient = drawn(rows, keys, 4, 2, torch.float32)
    cuts = [layouts.cu_seqlens([d[i] for d in documents]) for i in range(2)]
    kernel.reset_pairs()
    x = [y.requires_grad_() for y in (q, k, v)]
    out = flash_attn_varlen_func(*x, *cuts, 8, 30, causal=True)
    seen = 4 * sum(a * (b - a) + a * (a + 1) // 2 for a, b in documents)
    assert kernel.pairs() == (seen, 0)
    torch.autograd.grad(out, x, gradient)
    assert kernel.pairs() == (seen, seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_direct_and_exact_agree(dtype: torch.dtype) -> None:
    lengths = [9, 3, 3, 3, 70, 1]
    tensors = drawn(sum(lengths), sum(lengths), 4, 2, dtype)
    output, _, gradients = expected([(n, n) for n in lengths], tensors, True)
    kernel.reset_pairs()
    for found, exact, wanted in zip(
        kernel.direct(lengths, *tensors), reference.exact(lengths, tensors), (output, *gradients), strict=True
    ):
        close(found, wanted, dtype)
        close(exact, wanted, torch.float64 if dtype == torch.float32 else torch.float32)
    assert kernel.pairs() == (0, 0)


def test_exact_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [50, 7, 7, 1]
    tensors = drawn(65, 65, 4, 2, torch.float32)
    whole = reference.exact(lengths, tensors)
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", 1000)
    for a, b in zip(reference.exact(lengths, tensors), whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-13, rtol=1e-13)


LENGTHS = [[1], [8], [5, 16, 1, 1, 31], [2, 4, 6, 64], [3] * 17]
LAYOUTS = {
    "contiguous": layouts.contiguous,
    "zigzag": layouts.zigzag,
    "zigzag in two": lambda lengths, ranks: layouts.zigzag(lengths, ranks // 2, 2),
    "stripe": layouts.stripe,
    "per document": lambda lengths, ranks: layouts.per_document(lengths, ranks, ranks),
    "zigzag per document": lambda lengths, ranks: layouts.per_document(lengths, ranks, 2 * ranks),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_layouts_have_every_token_once(lengths: list[int], ranks: int, name: str) -> None:
    layout = LAYOUTS[name](lengths, ranks)
    assert len(layout.rows) == ranks and len({rows.numel() for rows in layout.rows}) == 1
    tokens = torch.cat(layout.rows)
    assert tokens[tokens >= 0].sort().values.equal(torch.arange(sum(lengths)))
    assert sum(layout.lengths) == layout.num_rows
    whole = torch.arange(sum(lengths)) + 100
    local = layout.local(whole, 0)
    assert local[layout.rows[0] >= 0].equal(layout.rows[0][layout.rows[0] >= 0] + 100)
    assert not local[layout.rows[0] < 0].any()


def test_layouts_by_hand() -> None:
    assert [x.tolist() for x in layouts.zigzag([8], 2).rows] == [[0, 1, 6, 7], [2, 3, 4, 5]]
    assert [x.tolist() for x in layouts.stripe([3, 2], 2).rows] == [[0, 2, 4], [1, 3, -1]]
    assert [x.tolist() for x in layouts.per_document([3, 4], 2, 4).rows] == [[0, -1, 3, 6], [1, 2, 4, 5]]


@pytest.mark.parametrize("strategy", ["mixed", "sequence_aware"])
def test_layout_and_pairs_of_evenspan(strategy: str) -> None:
    batch = Batch("", (700, 90, 90, 33, 1), Shape(8, 2, 64), "f32", 4)
    system = Evenspan(strategy)
    layout = system.layout(batch)
    assert torch.cat(layout.rows).sort().values.equal(torch.arange(batch.num_tokens))
    assert sum(system.pairs(batch)) == batch.causal_pairs
    assert evenspan.plan(batch.lengths, 4, strategy=strategy, heads=8, kv_heads=2, head_dim=64).ranks == 4


def test_batches_are_what_they_say() -> None:
    named = lengths_by_name()
    assert all(sum(named[name]) == 8192 for name in ("one long", "eight equal", "ProLong", "Wikipedia"))
    assert all(n % 2 for n in named["odd"]) and sum(named["odd"]) == 8191
    assert len(named["2048 tiny"]) == 2048
    assert len({(b.name, b.shape, b.dtype) for b in batches(2)}) == len(batches(2)) == 22


def test_ranks_that_fail_are_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    batch = Batch("", (300, 41, 1), Shape(4, 2, 16), "f32", 2)
    torch.save(reference.exact(batch.lengths, tensors(batch)), tmp_path / "exact.pt")
    ranks = pool.Pool(2, "gloo")
    try:
        with pytest.raises(pool.RankError, match="KeyError: 'no such system'"):
            ranks.call("check", batch, "no such system", str(tmp_path / "exact.pt"))
        found = ranks.call("check", batch, "evenspan sequence_aware", str(tmp_path / "exact.pt"))
        assert ranks.starts == 2
        assert sum(rank["pairs"] for rank in found) == batch.causal_pairs
        assert sum(rank["rows"] for rank in found) == batch.num_tokens
        limit = reference.tolerance(batch)
        assert all(largest < limit for rank in found for largest, _ in rank["errors"].values())
        name = "evenspan sequence_aware"
        times, beside = ranks.call("measure", batch, [name], name, 2)[0]
        # The kernel on one rank and on all, the first one rotates, and the anchor around them.
        assert [[place for place, _, _ in steps] for steps in times.values()] == [[0, 3], [1, 2]]
        assert len(beside) == 5
    finally:
        ranks.stop()


def test_work_of_a_step_is_weighed_as_the_planner_does() -> None:
    header = (ROOT / "include" / "evenspan" / "plan" / "request.h").read_text()
    assert "double pair_seconds = 2 * 5.128e-9;" in header and "double token_seconds = 0.1839576e-3;" in header
    assert (report.PAIR_SECONDS, report.TOKEN_SECONDS) == (2 * 5.128e-9, 0.1839576e-3)
    plan = evenspan.plan((70000, 9000, 90, 33), 4, strategy="ring", heads=8, kv_heads=2, head_dim=64)
    x = {"pairs": [8 * pairs for pairs in plan.pairs], "rows": plan.tokens}
    assert report.step_work({"shape": "8/2 x 64"}, x) == pytest.approx(plan.metrics["work_max_over_mean"], rel=1e-9)


def test_the_report_compares_with_the_steps_beside() -> None:
    def timed(*over_anchor: float) -> dict:
        return harness.summary([10.0] * len(over_anchor), list(over_anchor), [1.0, 1.0])

    def system(*over_anchor: float) -> dict:
        counts = {"sent_bytes": 1000, "rows": [4, 4], "pairs": [18, 18], "work": 1.0}
        return {"status": "ok", "prepare_ms": 0.1, **counts, **timed(*over_anchor)}

    systems = {
        "evenspan auto": system(1.0),
        "evenspan sequence_aware": system(0.8, 0.8, 0.8),
        "ring-flash-attn ring_varlen": system(1.2, 1.3, 1.4),
        "ring-flash-attn llama3_varlen": system(1.1, 5.0, 1.1),
        "DeepSpeed Ulysses": {"status": "wrong", "reason": "error < 1 in dv", "sent_bytes": 5},
    }
    batch = {
        "batch": "odd",
        "title": "odd, 8/2 x 64, bf16",
        "shape": "8/2 x 64",
        "lengths": [5, 3],
        "causal_pairs": 36,
        "direct": timed(1.6, 1.6, 1.6),
        "direct_all": timed(1.8, 1.8, 1.8),
        "systems": systems,
        "counts": {4: {name: x for name, x in systems.items() if x["status"] == "ok"}},
    }
    machine = dict.fromkeys(["date", "cores", "processor", "device", "system", "python", "torch", "commit"], "x")
    results = {
        "machine": machine,
        "ranks": 2,
        "repetitions": 3,
        "command": "run",
        "versions": dict.fromkeys(systems, "1"),
        "missing": {"torch": "not installed"},
        "batches": [batch],
    }
    assert report.speed_ups(results) == {
        "the best peer": [(batch["title"], 1.1)],
        "llama3_varlen": [(batch["title"], 1.1)],
        "ring_varlen": [(batch["title"], 1.3)],
    }
    assert report.ratio(systems["ring-flash-attn ring_varlen"], systems["evenspan sequence_aware"]) == 1.3 / 0.8
    text = report.markdown(results)
    assert report.most_speed_up(results, "ring_varlen") == pytest.approx(2 * 1.3 / 1.8)
    assert "| the best peer | 1 | 1.100 | 1.222 | 1.100 | odd, 8/2 x 64, bf16 |" in text
    assert "fraction of the ideal: geometric mean 0.800" in text
    assert "fraction of what all cores at once reach: geometric mean 0.900" in text
    assert "- DeepSpeed Ulysses: wrong, error < 1 in dv" in text
    assert "- torch is missing: not installed" in text
    assert "wrong: error &lt; 1 in dv" in page.html(results)


def test_a_step_is_measured_by_the_anchors_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two ranks on a machine that becomes slower with every step.
    def ranks(slower: float) -> tuple[dict, list]:
        names = {"a": [(0, 2.0 * slower, 0.5), (3, 8.0, 0.5)], "b": [(1, 4.0, 0.5), (2, 6.0, 0.5)]}
        return names, [(1.0, 0.1), (3.0 * slower, 0.2), (5.0, 0.3), (7.0, 0.3), (9.0, 0.3)]

    class Answers:
        def call(self, command: str, *arguments: object, limit_seconds: float) -> list:
            assert (command, arguments[1:]) == ("measure", (["evenspan auto", "a", "b"], "evenspan auto", 2))
            return [ranks(1.0), ranks(1.5)]

    run = harness.Harness.__new__(harness.Harness)
    monkeypatch.setattr(run, "options", argparse.Namespace(repetitions=2), raising=False)
    times = run.measure(Answers(), None, ["evenspan auto", "a", "b"])  # type: ignore[arg-type]
    # The first of each of the two rounds: as many as of the others, so that least times compare.
    assert times["evenspan auto"]["all_ms"] == [1000, 5000]
    assert times["a"]["all_ms"] == [3000, 8000]
    assert times["a"]["over_anchor"] == [2 * 3 / 5.5, 1.0]
    assert times["b"]["over_anchor"] == [2 * 4 / 9.5, 1.0]
    assert times["b"]["processor_ms"] == [500, 500]
