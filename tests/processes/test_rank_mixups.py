"""Ranks that were given, or do, something else than the others: an error on all of them that names it."""

from __future__ import annotations

from typing import Any

import evenspan
import torch
import torch.distributed as dist
import transformers
from groups import results, run_ranks

DOCUMENTS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(config)


def train(context: evenspan.Context, model: Any, loader: Any, skips: int = 0) -> None:
    for i, batch in enumerate(context.shard(loader)):
        if i + 1 == skips:
            continue
        context.loss(model(**batch)).backward()
        context.reduce_gradients()
        model.zero_grad()


def as_row(ids: list[int], **keys: Any) -> dict[str, Any]:
    return {"input_ids": [ids], **keys}


def mixed_up() -> dict[str, str]:
    rank = dist.get_rank()
    said = {}
    row = DOCUMENTS[0]

    def run(name: str, loader: Any, **how: Any) -> None:
        group = dist.new_group([0, 1])
        model = llama()
        try:
            with evenspan.attach(model, group, strategy="ring", timeout=20) as context:
                train(context, model, loader, **how)
                said[name] = "nothing"
        except evenspan.Error as error:
            said[name] = f"{type(error).__name__}: {error}"

    run("tokens", [as_row([*row[:-1], 9 + rank])])
    run("labels", [as_row(row, labels=[[*row[:-1], -100 if rank else 5]])])
    run("weights", [as_row(row, loss_weights=[[1, 1, 1, 1, 1, 1 + rank]])])
    run("lengths", [as_row(row, documents=[3 + rank, 3 - rank])])
    run("fewer batches", [DOCUMENTS] * (2 - rank))
    run("a batch left out", [DOCUMENTS, DOCUMENTS[::-1]], skips=rank)
    run("one refuses", [DOCUMENTS, DOCUMENTS if rank else [[99]]])
    dist.barrier()  # a process that ends takes what it has said along
    return said


def test_mixed_up_ranks_are_told_so() -> None:
    expected = {
        "tokens": "they differ in the tokens, the labels",
        "labels": "they differ in the labels;",
        "weights": "they differ in the labels' weights;",
        "lengths": "they differ in the documents' lengths",
        "fewer batches": "whether there is one more (1 on rank 0, 0 on rank 1)",
        "a batch left out": "all ranks make the same calls in the same order",
        "one refuses": "token ids must be in 0..10",
    }
    for rank, said in enumerate(results(run_ranks(2, mixed_up))):
        assert said.keys() == expected.keys()
        for name, text in expected.items():
            kind = "InvalidArgumentError" if (name, rank) == ("one refuses", 0) else "CommunicationError"
            assert said[name].startswith(kind), (name, said[name])
            assert text in said[name], (name, said[name])


def refused_on_all_ranks() -> list[str]:
    """A group outlives what all of its ranks refuse."""
    said = []
    for batch in ([[99]], as_row([1, 2], documents=[3]), DOCUMENTS):
        model = llama()
        try:
            with evenspan.attach(model) as context:
                train(context, model, [batch])
                said.append("trained")
        except evenspan.Error as error:
            said.append(type(error).__name__)
    return said


def test_a_group_outlives_what_all_ranks_refuse() -> None:
    for said in results(run_ranks(2, refused_on_all_ranks)):
        assert said == ["InvalidArgumentError", "InvalidArgumentError", "trained"]


def timeouts() -> list[str]:
    said = []
    group = dist.new_group([0, 1])
    for timeout in (0, 7, None, 7.0, 8):
        try:
            evenspan.attach(llama(), group, timeout=timeout).detach()
            said.append("")
        except evenspan.InvalidArgumentError as error:
            said.append(str(error))
    return said


def test_a_group_keeps_its_timeout() -> None:
    for zero, first, same, again, other in results(run_ranks(2, timeouts)):
        assert "must be a positive number of seconds, it is 0" in zero
        assert (first, same, again) == ("", "", "")
        assert "it has 7 seconds and 8 are asked for" in other
