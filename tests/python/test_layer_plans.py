"""Plans of layers with different masks on one placement: Plan.with_mask, and planners of several kinds of layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evenspan
import pytest
import torch
import torch.nn.functional as F
from evenspan import _sharding

LENGTHS = [600, 40, 90, 8]
SHAPE: dict[str, Any] = {"heads": 4, "kv_heads": 2, "head_dim": 8, "dtype": "f64"}


def make_planner(**options: Any) -> Any:
    return _sharding.planner(4, **{**SHAPE, **options})


def test_a_plan_with_another_mask_keeps_the_placement() -> None:
    base = evenspan.plan(LENGTHS, 4, strategy="mixed", **SHAPE)
    windows = base.with_mask("window:50")
    assert windows.placement == base.placement
    assert windows.lengths == base.lengths
    assert sum(windows.pairs) == sum(min(q + 1, 50) for length in LENGTHS for q in range(length))
    assert sum(windows.sent_bytes) < sum(base.sent_bytes)
    assert windows.hash != base.hash
    assert windows.with_mask("causal").placement == base.placement
    mixed = base.with_mask(["window:50", "causal", "full", "prefix:3"])
    assert mixed.placement == base.placement
    with pytest.raises(evenspan.InvalidArgumentError, match="there are 2 masks and 4 documents"):
        base.with_mask(["causal", "causal"])


def windowed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """A query sees `window` keys, itself the last: what transformers' sliding_window says."""
    distance = torch.arange(len(q))[:, None] - torch.arange(len(q))[None, :]
    mask = (distance >= 0) & (distance < window)
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(0, 1)


@pytest.mark.parametrize("window", [1, 2, 40, 90, 599, 601])
def test_windows_see_what_sliding_windows_see(window: int) -> None:
    plan = evenspan.plan(LENGTHS, 1, **SHAPE).with_mask(f"window:{window}")
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(sum(LENGTHS), h, 8, generator=generator, dtype=torch.float64) for h in (4, 2, 2))
    parts = zip(q.split(LENGTHS), k.split(LENGTHS), v.split(LENGTHS), strict=True)
    expected = torch.cat([windowed(*part, window) for part in parts])
    assert (evenspan.attention(q, k, v, plan) - expected).abs().max() < 1e-13


def test_a_planner_gives_a_plan_for_each_kind_of_layer() -> None:
    planner = make_planner(layers=[(5, 50), (1, None)], strategy="mixed")
    planner.prefetch(LENGTHS, "causal")
    windows, full = planner.plans(LENGTHS, "causal")
    assert planner.counts["made"] == planner.counts["made_ahead"] == 1
    assert windows.placement == full.placement
    assert windows.hash == full.with_mask("window:50").hash
    again = planner.plans(LENGTHS, "causal")
    assert [plan.hash for plan in again] == [windows.hash, full.hash]
    assert planner.counts["ready"] >= 1


def test_kinds_that_see_the_same_have_the_same_plan() -> None:
    wide, full, narrow = make_planner(layers=[(2, 600), (2, None), (2, 599)]).plans(LENGTHS, "causal")
    assert wide is full
    assert narrow is not full
    short_wide, short_full, short_narrow = make_planner(layers=[(2, 600), (2, None), (2, 599)]).plans([30, 9], "causal")
    assert short_wide is short_full is short_narrow


def test_a_window_in_every_layer_is_the_mask_of_the_placement() -> None:
    (only,) = make_planner(layers=[(6, 50)]).plans(LENGTHS, "causal")
    mask = make_planner().plans(LENGTHS, "window:50")[0]
    assert (only.placement, only.pairs, only.sent_bytes) == (mask.placement, mask.pairs, mask.sent_bytes)
    narrow, wide = make_planner(layers=[(3, 50), (3, 300)]).plans(LENGTHS, "causal")
    assert wide.placement == narrow.placement
    assert sum(wide.pairs) == sum(min(q + 1, 300) for length in LENGTHS for q in range(length))
    # A document's own window counts too.
    narrow, wide = make_planner(layers=[(3, 50), (3, 300)]).plans(LENGTHS, "window:70")
    assert sum(wide.pairs) == sum(min(q + 1, 70) for length in LENGTHS for q in range(length))


def test_the_placement_is_that_of_the_whole_model() -> None:
    """Layers with windows weigh a token more, so fewer full layers send fewer tokens away from long documents."""
    model = (12, 64, 128, 100)
    full = make_planner(model=model, layers=[(12, None)]).plans([900, 200, 200, 100], "causal")[0]
    mostly = make_planner(model=model, layers=[(11, 20), (1, None)]).plans([900, 200, 200, 100], "causal")[1]
    assert full.placement != mostly.placement
    assert full.metrics["work_max_over_mean"] < 1.02
    assert mostly.metrics["work_max_over_mean"] < 1.02
    assert mostly.metrics["tokens_max_over_mean"] < full.metrics["tokens_max_over_mean"]


def test_a_model_file_and_layers_say_the_same(tmp_path: Path) -> None:
    config = {
        "model_type": "mistral", "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 9,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 50,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert make_planner(model=path, layers=[(4, 50)]).plans(LENGTHS, "causal")[0].placement
    with pytest.raises(evenspan.InvalidArgumentError, match="4 without a window, and the model has 4 softmax layers"):
        make_planner(model=path, layers=[(4, None)])
    with pytest.raises(evenspan.InvalidArgumentError, match=r'every layer .* has a window.*give mask="window:50"'):
        evenspan.plan(LENGTHS, 4, model=path, **SHAPE)
    assert evenspan.plan(LENGTHS, 4, model=path, mask="window:50", **SHAPE).tokens


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": [(0, None)]}, "numbers of layers and windows are at least 1"),
        ({"layers": [(3, 0)]}, "3 with a window of 0 keys; numbers of layers and windows are at least 1"),
        ({"layers": [(3, 9), (2, 9)]}, "give each kind of layer once"),
        ({"layers": [(3, None), (2, None)]}, "give each kind of layer once"),
        ({"layers": [(3, None)], "model": (4, 8, 8, 8)}, "the model has 4 softmax layers; give the layers"),
    ],
)
def test_layers_that_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(evenspan.InvalidArgumentError, match=text):
        make_planner(**options)


def test_windows_go_with_causal_documents() -> None:
    with pytest.raises(evenspan.InvalidArgumentError, match="see causal documents, document 0 has the mask full"):
        make_planner(layers=[(3, 9), (1, None)]).plans(LENGTHS, "full")
