"""The Python package in one process: plans, attention, errors, compilation, the command line."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evenspan
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import run


def make_plan(lengths: list[int], ranks: int = 1, **options: Any) -> Any:
    return evenspan.plan(lengths, ranks, **{"heads": 4, "kv_heads": 2, "head_dim": 8, "dtype": "f32", **options})


def make_inputs(num_tokens: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(num_tokens, heads, 8, generator=generator, dtype=dtype) for heads in (4, 2, 2)]


def test_a_plan_tells_what_it_is() -> None:
    plan = make_plan([100, 3, 50], 4, strategy="zigzag")
    assert (plan.lengths, plan.ranks, plan.strategy, plan.dtype) == ([100, 3, 50], 4, "zigzag", "f32")
    assert (plan.heads, plan.kv_heads, plan.head_dim, plan.num_tokens) == (4, 2, 8, 153)
    assert [sum(end - begin for _, begin, end in spans) for spans in plan.placement] == plan.tokens
    assert sum(plan.sent_bytes) == plan.metrics["sent_bytes_total"] > 0
    assert len(plan.work) == 4
    assert plan.hash == make_plan([100, 3, 50], 4, strategy="zigzag").hash
    assert plan.hash != make_plan([100, 3, 51], 4, strategy="zigzag").hash
    assert "rank" in plan.text()


@pytest.fixture
def profile(write_profile: Callable[..., Path]) -> Callable[[float], Path]:
    """A machine of given bytes per second whose kernels were measured for the heads of make_plan."""
    return lambda bytes_per_second: write_profile(8, "f32", bytes_per_second)


def test_auto_takes_the_shortest_step_and_the_plan_says_which(profile: Callable[[float], Path]) -> None:
    slow = make_plan([900, 30, 20], 4, strategy="auto", profile=profile(1.0))
    assert sum(slow.sent_bytes) == 0  # a byte a second: nothing may travel
    fast = make_plan([900, 30, 20], 4, strategy="auto", profile=profile(1e15))
    assert fast.strategy not in ("auto", "local")
    again = make_plan([900, 30, 20], 4, strategy="auto", profile=str(profile(1e15)))
    assert again.hash == fast.hash
    assert (
        evenspan.plan([3000] * 3, 4, heads=32, kv_heads=8, head_dim=128, strategy="auto", profile="h100-sxm").ranks == 4
    )


def test_a_topology_is_planned_for(tmp_path: Path, profile: Callable[[float], Path]) -> None:
    machine = profile(1e15)
    slow_between = {"ranks": 4, "levels": [{"group_size": 2}, {"group_size": 4, "bytes_per_second": 1.0}]}
    slow_between["levels"][1]["latency_seconds"] = 0
    cluster = tmp_path / "cluster.json"
    cluster.write_text(json.dumps(slow_between))
    plan = make_plan([900, 30, 20], 4, strategy="auto", profile=machine, topology=cluster)
    assert plan.hash != make_plan([900, 30, 20], 4, strategy="auto", profile=machine).hash
    of_nodes = [{d for own in plan.placement[node : node + 2] for d, _, _ in own} for node in (0, 2)]
    assert not of_nodes[0] & of_nodes[1]  # a byte a second: no document is on both nodes
    with pytest.raises(evenspan.InvalidArgumentError, match="has 4 ranks, there are 8"):
        make_plan([900], 8, profile=machine, topology=str(cluster))
    with pytest.raises(evenspan.InvalidArgumentError, match="ranks_per_node = 2 says it again"):
        make_plan([900], 4, profile=machine, topology=cluster, ranks_per_node=2)
    with pytest.raises(evenspan.InvalidArgumentError, match="has no effect with mixed and no profile"):
        make_plan([900], 4, topology=cluster)


def test_the_model_of_a_plan_is_weighed() -> None:
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "profile": "h100-sxm"}
    wide = evenspan.plan([30000, 900, 900], 2, **shape)
    narrow = evenspan.plan([30000, 900, 900], 2, model=(32, 64, 64, 64), **shape)
    assert sum(narrow.work) < sum(wide.work)  # hardly any token-wise layers


def test_a_model_without_a_profile_is_weighed_by_operations() -> None:
    layers, hidden, intermediate, vocabulary, heads, kv_heads, dim = 2, 64, 96, 50, 4, 2, 8
    plan = evenspan.plan(
        [30], 1, heads=heads, kv_heads=kv_heads, head_dim=dim, model=(layers, hidden, intermediate, vocabulary)
    )
    weights = layers * hidden * ((2 * heads + 2 * kv_heads) * dim + 3 * intermediate) + hidden * vocabulary
    pair = layers * 2 * (2 + 5) * heads * dim  # products of 2 in forward, 5 in backward
    assert plan.work[0] == pytest.approx(1e-12 * (30 * 31 / 2 * pair + 30 * 6 * weights))


def test_a_model_file_is_weighed_with_its_linear_layers(tmp_path: Path) -> None:
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128}
    config = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 32,
        "vocab_size": 64,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    softmax = tmp_path / "softmax.json"
    softmax.write_text(json.dumps(config))
    hybrid = tmp_path / "hybrid.json"
    linear = {"linear_num_heads": 32, "linear_key_dim": 128, "linear_value_dim": 128}
    hybrid.write_text(json.dumps({**config, **linear, "layer_types": ["kda"] * 24 + ["full_attention"] * 8}))
    lengths = [30000, 900, 900]
    of_file = evenspan.plan(lengths, 2, profile="h100-sxm", model=softmax, **shape)
    of_sizes = evenspan.plan(lengths, 2, profile="h100-sxm", model=(32, 64, 64, 64), **shape)
    of_hybrid = evenspan.plan(lengths, 2, profile="h100-sxm", model=str(hybrid), **shape)
    assert of_file.hash == of_sizes.hash
    assert sum(of_hybrid.work) < sum(of_file.work)  # a quarter of the layers has pairs
    with pytest.raises(evenspan.InvalidArgumentError, match=r"has 32 query heads and 8 kv heads of 128, the plan 8"):
        evenspan.plan(lengths, 2, profile="h100-sxm", model=softmax, heads=8, head_dim=128)


def test_the_default_is_even_without_costs() -> None:
    """`sequence_aware`, the default once, gave a rank up to 1.6 times the mean of the pairs without a model."""
    lengths = [20000, 9000, 3000, *[700] * 12, *[90] * 60]
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128}
    plan = evenspan.plan(lengths, 2, **shape)
    assert plan.strategy == "mixed"
    for of_ranks in (plan.pairs, plan.tokens):
        assert max(of_ranks) < 1.05 * sum(of_ranks) / 2
    by_sum = evenspan.plan(lengths, 2, strategy="sequence_aware", **shape)
    assert max(by_sum.pairs) > 1.05 * sum(by_sum.pairs) / 2  # else nothing is shown here


def test_auto_has_a_default_profile_and_says_which() -> None:
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "strategy": "auto"}
    with pytest.warns(UserWarning, match="auto chooses for the machine of the profile h100-sxm, since none is named"):
        plan = evenspan.plan([9000, 3000, 700], 2, **shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evenspan.plan([9000, 3000, 700], 2, profile="h100-sxm", **shape).hash == plan.hash


def test_a_choice_without_a_plan_is_told(profile: Callable[[float], Path]) -> None:
    """Where links cost nothing ulysses is the shortest, and on 72 ranks a formula."""
    with pytest.warns(UserWarning, match="of which no plan is written on 72 ranks; this is the plan of"):
        plan = make_plan(
            [5000, 100],
            72,
            heads=72,
            kv_heads=72,
            ranks_per_node=0,
            strategy="auto",
            profile=profile(1e15),
        )
    assert plan.ranks == 72


def test_a_profile_weighs_work(profile: Callable[[float], Path]) -> None:
    by_profile = make_plan([900, 30], 2, profile=profile(1e9))
    assert by_profile.work != make_plan([900, 30], 2).work


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strategy": "auto"}, "in f32; it has 64 in bf16"),  # what the default profile has
        ({"strategy": "auto"}, "(auto chooses for the machine of the profile h100-sxm, since none is named"),
        ({"profile": "h100"}, 'no shipped profile and no file "h100"'),
        ({"profile": "h100-sxm"}, "h100-sxm has no attention times of head dimension 8 in f32"),
        ({"strategy": "auto", "profile": "slow", "memory_budget": 1}, "no candidate of auto keeps the memory budget"),
    ],
)
def test_profiles_that_are_refused(profile: Callable[[float], Path], options: dict[str, Any], text: str) -> None:
    if options.get("profile") == "slow":
        options = {**options, "profile": profile(1.0)}
    with pytest.raises(evenspan.Error, match=re.escape(text)):
        make_plan([50, 20], 2, **options)


def test_shards_hold_every_token_once() -> None:
    plan = make_plan([10, 1, 30], 3)
    tokens = torch.arange(41)
    parts = [evenspan.shard(tokens, plan, rank) for rank in range(3)]
    assert [part.numel() for part in parts] == plan.tokens
    assert torch.equal(torch.cat(parts).sort().values, tokens)
    grid = tokens.expand(2, 41)
    assert torch.equal(evenspan.shard(grid, plan, 1, dim=1)[1], parts[1])


@pytest.mark.parametrize("mask", ["causal", "full"])
def test_one_rank_needs_no_group(mask: str) -> None:
    plan = make_plan([9, 1, 5], mask=mask, dtype=torch.float64)
    q, k, v = (x.requires_grad_() for x in make_inputs(15, torch.float64))
    out = evenspan.attention(q, k, v, plan)
    parts = [
        F.scaled_dot_product_attention(
            *(x.transpose(0, 1) for x in part), is_causal=mask == "causal", enable_gqa=True
        ).transpose(0, 1)
        for part in zip(*(x.split([9, 1, 5]) for x in (q, k, v)), strict=True)
    ]
    expected = torch.cat(parts)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(out.square().sum(), (q, k, v)),
        torch.autograd.grad(expected.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    assert torch.equal(evenspan.unshard(out, plan), evenspan.unshard(evenspan.shard(out, plan, 0), plan))


def test_a_plan_is_bound_once() -> None:
    plan = make_plan([4])
    assert copy.deepcopy({"plan": plan})["plan"] is plan and copy.copy(plan) is plan
    assert evenspan.bind(plan) is evenspan.bind(plan)
    assert evenspan.bind(plan).num_tokens == 4
    handle = evenspan.bind(plan).handle
    assert handle.dtype == torch.int64 and handle.dim() == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"lengths": []}, ""),
        ({"lengths": [3, 0]}, "0"),
        ({"lengths": [-2]}, "-2"),
        ({"lengths": "10"}, "lengths must be a list of whole numbers, it is '10' (str)"),
        ({"lengths": b"10"}, "it is b'10' (bytes)"),
        ({"lengths": 10}, "it is 10 (int)"),
        ({"lengths": None}, "it is None"),
        ({"lengths": {3: 1}}, "(dict)"),
        ({"lengths": {3, 4}}, "(set)"),
        ({"lengths": [3, 4.0]}, "item 1 is 4.0 (float)"),
        ({"lengths": ["3", "4"]}, "item 0 is '3' (str)"),
        ({"lengths": [3, True]}, "item 1 is True (bool)"),
        ({"lengths": [3, None]}, "item 1 is None"),
        ({"lengths": [[3], [4]]}, "item 0 is [3] (list)"),
        ({"lengths": [2**70]}, "whole numbers of at most 64 bits"),
        ({"lengths": torch.tensor(3)}, "(Tensor)"),
        ({"lengths": torch.tensor([3.0])}, "item 0 is 3.0 (float)"),
        ({"lengths": torch.tensor([True])}, "item 0 is True (bool)"),
        ({"lengths": np.array([3.5])}, "item 0 is 3.5 (float)"),
        ({"lengths": [np.float64(3)]}, "item 0 is "),
        ({"lengths": [np.bool_(True)]}, "item 0 is "),
        ({"heads": 2.5}, "heads must be a whole number of at most 32 bits, it is 2.5 (float)"),
        ({"head_dim": "8"}, "head_dim must be a whole number"),
        ({"ranks": True}, "ranks must be a whole number"),
        ({"ranks": 2**40}, "at most 32 bits"),
        ({"mask": None}, "mask must be a text"),
        ({"mask": [1, 2]}, "mask must be a text"),
        ({"strategy": "zigzak"}, "zigzag"),
        ({"kv_heads": 3}, "3"),
        ({"mask": "diagonal"}, "diagonal"),
        ({"mask": ["causal"]}, "mask"),
        ({"dtype": "f8"}, "f8"),
        ({"dtype": torch.int32}, "int32"),
        ({"ranks": 0}, "0"),
    ],
)
def test_bad_plans(arguments: dict[str, Any], text: str) -> None:
    options = {"lengths": [5, 6], "ranks": 2, **arguments}
    with pytest.raises(evenspan.InvalidArgumentError) as caught:
        make_plan(options.pop("lengths"), **options)
    assert text in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, evenspan.Error)
    assert isinstance(caught.value, RuntimeError)


def test_lengths_of_many_kinds() -> None:
    for lengths in ([5, 6], (5, 6), range(5, 7), iter([5, 6]), torch.tensor([5, 6]), np.array([5, 6], np.uint8)):
        assert make_plan(lengths).lengths == [5, 6]  # type: ignore[arg-type]
    assert make_plan([np.int32(5), torch.tensor(6)]).lengths == [5, 6]  # type: ignore[list-item]


def linear(*tensors: torch.Tensor, plan: Any) -> torch.Tensor:
    return evenspan.linear_attention(*tensors, gate=-torch.rand(5, 4, requires_grad=True), plan=plan)


def normalized(*tensors: torch.Tensor, plan: Any) -> torch.Tensor:
    return evenspan.linear_attention(*tensors, plan=plan, normalize=True)


@pytest.mark.parametrize("operation", ["attention", "linear_attention", "normalized", "short_convolution"])
@pytest.mark.parametrize("squared", [False, True])
def test_second_derivatives_are_refused(operation: str, squared: bool) -> None:
    """They would have been zeros, or parts of the sums, without a word; first derivatives with a graph are as ever."""
    plan = make_plan([3, 2], kv_heads=4)
    generator = torch.Generator().manual_seed(2)
    x = [torch.rand(5, 4, 8, generator=generator).requires_grad_() for _ in range(3)]
    if operation == "short_convolution":
        x = [
            torch.rand(5, 4, generator=generator).requires_grad_(),
            torch.rand(4, 3, generator=generator).requires_grad_(),
        ]
    functions = {
        "attention": evenspan.attention,
        "linear_attention": linear,
        "normalized": normalized,
        "short_convolution": evenspan.short_convolution,
    }

    def loss() -> torch.Tensor:
        out = functions[operation](*x, plan=plan)
        return out.square().sum() if squared else out.sum()

    torch.manual_seed(0)
    first = torch.autograd.grad(loss(), x)
    torch.manual_seed(0)
    graph = torch.autograd.grad(loss(), x, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, graph, strict=True))
    for gradient in graph:
        for tensor in x:
            with pytest.raises(evenspan.UnsupportedError, match="it has first derivatives only"):
                torch.autograd.grad(gradient.sum(), tensor, retain_graph=True, allow_unused=True)


def test_linear_layers_refuse_masks_that_look_ahead() -> None:
    x = torch.ones(5, 4, 8)
    for mask in ("full", "prefix:2"):
        with pytest.raises(evenspan.InvalidArgumentError, match=f"document 0 has the mask {mask}"):
            evenspan.linear_attention(x, x, x, plan=make_plan([3, 2], mask=mask))
        evenspan.short_convolution(x[:, 0], x[0, 0, :4].expand(8, 4), plan=make_plan([3, 2], mask=mask))
    causal, window = (
        evenspan.linear_attention(x, x, x, plan=make_plan([3, 2], mask=mask)) for mask in ("causal", "window:1")
    )
    assert torch.equal(causal, window)


def test_bad_tensors() -> None:
    plan = make_plan([5])
    q, k, v = make_inputs(5)
    wrong_kinds = ((None, k, v), (q, k.tolist(), v), (q, k, v.numpy()), (q.to_sparse(), k, v))
    for bad in ((q[:4], k, v), (q, k.double(), v), (q[:, :3], k, v), (q, k, v[..., :4]), *wrong_kinds):
        with pytest.raises(evenspan.InvalidArgumentError):
            evenspan.attention(*bad, plan)
    for call in (
        lambda: evenspan.attention(q, k, v, "plan"),  # type: ignore[arg-type]
        lambda: evenspan.attention(q, k, v, plan, 3),  # type: ignore[arg-type]
        lambda: evenspan.bind(None),  # type: ignore[arg-type]
        lambda: evenspan.bind(plan, device="gpu"),
        lambda: evenspan.shard(None, plan),  # type: ignore[arg-type]
        lambda: evenspan.shard(q, plan, dim=3),
        lambda: evenspan.shard(q, plan, "0"),  # type: ignore[arg-type]
        lambda: evenspan.unshard(torch.tensor(1.0), plan),
        lambda: evenspan.unshard(q, plan, dim=-4),
    ):
        with pytest.raises(evenspan.InvalidArgumentError):
            call()
    with pytest.raises(evenspan.InvalidArgumentError):
        evenspan.shard(torch.zeros(6), plan, 0)
    with pytest.raises(evenspan.InvalidArgumentError):
        evenspan.shard(torch.zeros(5), plan, 1)
    with pytest.raises(evenspan.InvalidArgumentError):
        evenspan.unshard(torch.zeros(4), plan)
    with pytest.raises(evenspan.InvalidArgumentError):
        evenspan.bind(make_plan([5], 2))
    with pytest.raises(RuntimeError):
        torch.ops.evenspan.attention(q, k, v, torch.tensor(123456789))


def test_compiled_code_is_not_compiled_again_for_another_batch() -> None:
    compilations = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        nonlocal compilations
        compilations += 1
        from torch._dynamo.backends.debugging import aot_eager

        return aot_eager(graph, inputs)

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, handle: torch.Tensor) -> torch.Tensor:
        return torch.ops.evenspan.attention(q * 2, k, v, handle).sin()

    torch._dynamo.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    for lengths in ([9, 3], [4, 4, 4], [12], [1, 11]):
        plan = make_plan(lengths)
        handle = evenspan.bind(plan).handle
        q, k, v = (x.requires_grad_() for x in make_inputs(12))
        grads = []
        for f in (compiled, function):
            out = f(q, k, v, handle)
            grads.append([out, *torch.autograd.grad(out.sum(), (q, k, v))])
        for a, b in zip(*grads, strict=True):
            assert torch.equal(a, b)
    assert compilations == 1


def test_command_line_help_and_errors() -> None:
    done = run("--help")
    assert done.returncode == 0 and "tokenize" in done.stdout
    done = run("train", "--help")
    assert done.returncode == 0 and "data.batch_tokens" in done.stdout
    for words, text in (
        (["trian"], "trian"),
        (["train"], "CONFIG"),
        (["train", "/nowhere.toml"], "/nowhere.toml"),
        (["tokenize", "x"], "--tokenizer"),
    ):
        done = run(*words)
        assert done.returncode == 2 and text in done.stderr, done
