"""The Python package in one process: plans, attention, errors, compilation, tokenization, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = os.environ.get("EVENSPAN_PYTHONPATH", str(ROOT / "build" / "python"))
sys.path.insert(0, PACKAGE)
evenspan = pytest.importorskip("evenspan", reason="the Python module is not built")


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


def test_bad_tensors() -> None:
    plan = make_plan([5])
    q, k, v = make_inputs(5)
    for bad in ((q[:4], k, v), (q, k.double(), v), (q[:, :3], k, v), (q, k, v[..., :4])):
        with pytest.raises(evenspan.InvalidArgumentError):
            evenspan.attention(*bad, plan)
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


# The drop-in refuses what it cannot do.


def llama(**options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, **options,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
    ],
)
def test_models_that_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(evenspan.UnsupportedError, match=text):
        evenspan.attach(llama(**options))


def test_batches_that_are_refused() -> None:
    context = evenspan.attach(llama())
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(evenspan.UnsupportedError, match="attention_mask"):
        next(context.shard([{"input_ids": ids, "attention_mask": torch.ones(1, 3)}]))
    for bad in (
        {"input_ids": ids, "documents": [2, 2]},
        {"input_ids": ids.expand(2, 3)},
        {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 3]])},
        {"input_ids": ids, "tokens": ids},
        {"labels": ids},
        [],
        ids,
    ):
        with pytest.raises(evenspan.InvalidArgumentError):
            next(context.shard([bad]))
    with pytest.raises(evenspan.InvalidArgumentError, match="average"):
        evenspan.attach(llama(), average="mean")


def test_the_attention_function_refuses() -> None:
    model = llama()
    with pytest.raises(evenspan.InvalidArgumentError, match=r"Context\.shard"):
        context = evenspan.attach(model)
        model(input_ids=torch.tensor([[1, 2]]))
    batch = next(context.shard([[[1, 2, 3]]]))
    from evenspan.huggingface import attention_function

    module = torch.nn.Identity()
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 1, 3, 8)
    step = {"evenspan": batch["evenspan"]}
    for bad in (
        {"dropout": 0.1}, {"softcap": 30.0}, {"s_aux": torch.zeros(2)}, {"sliding_window": 2}, {"is_causal": False},
    ):  # fmt: skip
        with pytest.raises(evenspan.UnsupportedError):
            attention_function(module, q, k, k, None, **bad, **step)
    with pytest.raises(evenspan.UnsupportedError):
        attention_function(module, q, k, k, torch.zeros(1, 1, 3, 3), **step)
    narrow, _ = attention_function(module, q, k, k, None, sliding_window=3, **step)
    wide, _ = attention_function(module, q, k, k, None, **step)
    assert torch.equal(narrow, wide)


def test_labels_are_shifted_inside_documents() -> None:
    context = evenspan.attach(llama(), strategy="local")
    batch = next(context.shard([[[1, 2, 3], [], [4], [5, 6]]]))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["shift_labels"].tolist() == [[2, 3, -100, -100, 6, -100]]
    assert context.num_labels == 3
    assert context.plan.lengths == [3, 1, 2]


# The command line.


def command(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    return subprocess.run(
        [sys.executable, "-m", "evenspan", *map(str, words)],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


def read_indexed(prefix: Path) -> list[list[int]]:
    """Reads .bin and .idx by the offsets of the format."""
    import numpy as np

    index = Path(f"{prefix}.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0" and int.from_bytes(index[9:17], "little") == 1
    dtype = {8: "<u2", 4: "<i4"}[index[17]]
    count, num_documents = (int.from_bytes(index[at : at + 8], "little") for at in (18, 26))
    lengths = np.frombuffer(index, "<i4", count, 34)
    pointers = np.frombuffer(index, "<i8", count, 34 + 4 * count)
    documents = np.frombuffer(index, "<i8", num_documents, 34 + 12 * count)
    assert documents.tolist() == list(range(count + 1)) and len(index) == 34 + 12 * count + 8 * num_documents
    tokens = Path(f"{prefix}.bin").read_bytes()
    return [np.frombuffer(tokens, dtype, n, at).tolist() for n, at in zip(lengths, pointers, strict=True)]


def test_tokenize_round_trip(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[UNK]", "<end>", "a", "b", "c"]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]").save_pretrained(tmp_path / "tok")
    (tmp_path / "in").mkdir()
    texts = ["a b c", "", "c c z"]
    (tmp_path / "in" / "x.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (tmp_path / "in" / "y.txt").write_text("b\nb")
    arguments = ["--tokenizer", tmp_path / "tok", "--out", tmp_path / "out", "--end-of-document", "<end>"]
    done = command("tokenize", tmp_path / "in", *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 documents, 11 tokens" in done.stdout
    assert read_indexed(tmp_path / "out") == [[2, 3, 4, 1], [4, 4, 0, 1], [3, 3, 1]]

    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    done = command("tokenize", tmp_path / "bad.txt", *arguments)
    assert done.returncode == 1 and "not UTF-8 at byte 2" in done.stderr
    assert not list(tmp_path.glob("*.part"))


def test_large_vocabularies_are_int32(tmp_path: Path) -> None:
    from evenspan._tokenize import write_indexed

    assert write_indexed([[70000, 1], [], [5]], tmp_path / "big", 70001) == (2, 3)
    assert read_indexed(tmp_path / "big") == [[70000, 1], [5]]
    with pytest.raises(evenspan.InvalidArgumentError):
        write_indexed([[5]], tmp_path / "small", 5)


def test_command_line_help_and_errors() -> None:
    done = command("--help")
    assert done.returncode == 0 and "tokenize" in done.stdout
    done = command("train", "--help")
    assert done.returncode == 0 and "data.batch_tokens" in done.stdout
    for words, text in (
        (["trian"], "trian"),
        (["train"], "CONFIG"),
        (["train", "/nowhere.toml"], "/nowhere.toml"),
        (["tokenize", "x"], "--tokenizer"),
    ):
        done = command(*words)
        assert done.returncode == 1 and text in done.stderr, done
