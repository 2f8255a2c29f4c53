"""Every argument of every public function, given what it cannot be: an error of evenspan, and none of the bindings."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import evenspan
import numpy as np
import pytest
import torch
import transformers

KINDS: dict[str, Any] = {
    "None": None,
    "bool": True,
    "int": 7,
    "float": 1.5,
    "nan": math.nan,
    "str": "seven",
    "bytes": b"seven",
    "list": [None],
    "tuple": (1, 2),
    "dict": {},
    "object": object(),
}

FORM = re.compile(r"\[\w+\] .*(it is|item 0 is|is a|are a) .*; ", re.DOTALL)  # rule, value, what to do

# What an argument may be, of KINDS. Everything else must be refused, and the error must show what was given.
FITS: dict[str, set[str]] = {
    "accumulate": {"None", "int"},
    "average": {"bool"},
    "beta": {"None"},
    "bias": {"None"},
    "dtype of attach": {"None"},
    "gate": {"None"},
    "global_batch_tokens": {"None", "int"},
    "group": {"None"},
    "groups": {"None"},
    "initial_state": {"None"},
    "kernel": {"None"},
    "kv_heads": {"None"},
    "micro_batch_tokens": {"None", "int"},
    "model of plan": {"None"},
    "normalize": {"bool"},
    "profile": {"None"},
    "rank": {"None"},
    "ranks": {"int"},
    "return_final_state": {"bool"},
    "scale": {"None", "int", "float"},
    "states": {"None"},
    "timeout": {"None", "int", "float"},
    "topology": {"None"},
}

# Right in kind, but not here: there is an error of another form, or none.
RIGHT_KINDS: dict[str, set[str]] = {
    "batch": {"None"},
    "batches": {"list", "tuple", "str", "bytes", "dict"},
    "device": {"int", "str"},
    "dim": {"int"},
    "dtype of plan": {"str"},
    "head_dim": {"int"},
    "heads": {"int"},
    "kv_heads": {"int"},
    "lengths": {"tuple"},
    "mask": {"str"},
    "memory_budget": {"int"},
    "model of plan": {"str"},
    "profile": {"str"},
    "rank": {"int"},
    "ranks_per_group": {"int"},
    "ranks_per_node": {"int"},
    "scale": {"nan"},
    "state_blocks": {"int"},
    "strategy": {"str"},
    "timeout": {"nan"},
    "token_slack": {"int", "float", "nan"},
    "topology": {"str"},
    "transport": {"str"},
}


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config)


def everything() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """The functions with arguments that suit them."""
    plan = evenspan.plan([3, 2], 1, heads=2, head_dim=4, dtype="f32")
    x = torch.rand(5, 2, 4)
    context = evenspan.attach(llama())
    (batch,) = context.shard([[[1, 2, 3]]])
    tensors = {"query": x, "key": x, "value": x, "plan": plan}

    def shard_all(
        batches: Any,
        accumulate: Any = None,
        global_batch_tokens: Any = None,
        micro_batch_tokens: Any = None,
        batch_planner: Any = "auto",
    ) -> list[Any]:
        return list(
            context.shard(
                batches,
                accumulate,
                global_batch_tokens=global_batch_tokens,
                micro_batch_tokens=micro_batch_tokens,
                batch_planner=batch_planner,
            )
        )

    return {
        "attach": (evenspan.attach, {"model": llama()}),
        "attention": (evenspan.attention, tensors),
        "bind": (evenspan.bind, {"plan": plan}),
        "linear_attention": (evenspan.linear_attention, {**tensors, "transport": "pipelined"}),
        "plan": (evenspan.plan, {"lengths": [3, 2], "ranks": 1, "heads": 2, "head_dim": 4}),
        "shard": (evenspan.shard, {"tensor": x, "plan": plan}),
        "short_convolution": (evenspan.short_convolution, {"x": x[:, 0], "weight": x[:4, 0, :2], "plan": plan}),
        "unshard": (evenspan.unshard, {"local": x, "plan": plan}),
        "Plan.with_mask": (lambda mask: plan.with_mask(mask), {"mask": "causal"}),
        "Context.shard": (shard_all, {"batches": []}),
        "Context.evaluate": (lambda batches: context.evaluate(batches), {"batches": [[[1, 2, 3]]]}),
        "Context.loss": (
            lambda outputs, batch=None: context.loss(outputs, batch),
            {"outputs": context._model(**batch)},
        ),
    }


def test_the_table_has_every_public_function() -> None:
    public = {name for name in evenspan.__all__ if inspect.isfunction(getattr(evenspan, name))}
    assert public <= set(everything())


@pytest.mark.parametrize("function", sorted(everything()))
def test_an_argument_of_the_wrong_kind_is_refused(function: str) -> None:
    """Once `evenspan.plan(dtype=None)` and many others were pybind's `incompatible function arguments`."""
    call, right = everything()[function]
    wrong = []
    for argument in inspect.signature(call).parameters:
        fits, right_kinds = (
            table.get(f"{argument} of {function}", table.get(argument, set())) for table in (FITS, RIGHT_KINDS)
        )
        for kind, value in KINDS.items():
            found = "no error"
            try:
                call(**{**right, argument: value})
            except evenspan.Error as error:
                found = str(error)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
                wrong.append(f"{argument}={value!r}: {found}")
            if kind not in right_kinds and not (found == "no error" if kind in fits else FORM.match(found)):
                wrong.append(f"{argument}={value!r}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dtype": None}, "dtype must be one of torch.bfloat16, torch.float16, torch.float32, torch.float64, or its"),
        ({"strategy": None}, "[plan] strategy must be a text, it is None (NoneType); give a name"),
        ({"profile": 7}, "[plan] profile must be a path, it is 7 (int); give a str or a pathlib.Path, or leave it out"),
        ({"topology": b"x"}, "[plan] topology must be a path, it is b'x' (bytes)"),
        ({"model": 5}, "[plan] model must be 4 whole numbers (layers, hidden size, intermediate size, vocabulary) or"),
        ({"model": (1, 2)}, "the path of a config.json, it is (1, 2) (tuple); give one of them"),
        ({"model": (1, 2, 3, "4")}, "vocabulary of model must be a whole number of at most 64 bits, it is '4' (str)"),
        ({"token_slack": "0.1"}, "token_slack must be a number, it is '0.1' (str); give one"),
        ({"token_slack": True}, "token_slack must be a number, it is True (bool); give one"),
        ({"token_slack": 10**400}, "token_slack must be a number"),
        (
            {"groups": 3},
            "groups must be a list of the ranks of each document, it is 3 (int); give one such as [[0, 1], [2]]",
        ),
        ({"groups": [0]}, "the group of document 0 must be a list of whole numbers, it is 0 (int); give one"),
        ({"groups": [[]]}, "the group of document 0 has 0 ranks; give one or more different ones in [0, 1)"),
        ({"groups": [[2**40]]}, "the group of document 0 has 1 ranks; give one or more different ones in [0, 1)"),
        ({"groups": [[0], [0]]}, "there are groups of ranks for 2 documents, and 1 documents; give one for each"),
        (
            {"groups": [[0]], "strategy": "ring"},
            "so strategy, ranks_per_group and memory_budget have no say; leave them",
        ),
    ],
)
def test_what_a_plan_cannot_be_made_of(change: dict[str, Any], text: str) -> None:
    with pytest.raises(evenspan.InvalidArgumentError, match=re.escape(text)):
        evenspan.plan([3], 1, **{"heads": 2, "head_dim": 4, **change})


def test_numbers_of_other_libraries() -> None:
    for slack in (np.float32(0.25), torch.tensor(0.25), 0.25):
        plan = evenspan.plan([3], 1, heads=2, head_dim=4, token_slack=slack, model=[np.int64(1), 8, 8, 8])
        assert plan.ranks == 1


def test_a_kernel_returns_two_tensors() -> None:
    x = torch.rand(5, 2, 4)
    plan = evenspan.plan([5], 1, heads=2, head_dim=4, dtype="f32")
    for kernel in (lambda *_: None, lambda *_: x, lambda *_: (x, None)):
        with pytest.raises(evenspan.InvalidArgumentError, match="kernel must return two tensors, output and state, it"):
            evenspan.linear_attention(x, x, x, plan=plan, kernel=kernel)


def test_scales_that_have_no_meaning() -> None:
    x = torch.rand(5, 2, 4)
    plan = evenspan.plan([5], 1, heads=2, head_dim=4, dtype="f32")
    for scale, text in ((0, "scale must not be 0"), (math.nan, "scale is nan; it must be finite"), (math.inf, "inf")):
        with pytest.raises(evenspan.InvalidArgumentError, match=text):
            evenspan.linear_attention(x, x, x, plan=plan, scale=scale)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_betas_are_finite(number: float) -> None:
    x = torch.rand(5, 2, 4)
    plan = evenspan.plan([5], 1, heads=2, head_dim=4, dtype="f32")
    beta = torch.rand(5, 2)
    beta[3, 1] = number
    with pytest.raises(evenspan.InvalidArgumentError, match=rf"beta is {number} at \[3, 1\]; it must be finite"):
        evenspan.linear_attention(x, x, x, beta=beta, plan=plan)
