"""How `shard` reads what loaders give: every key, what they say together, and what is refused."""

from __future__ import annotations

from typing import Any

import evenspan
import numpy as np
import pytest
import torch
from evenspan.huggingface._batches import Batch, read_batch
from torch.utils._python_dispatch import TorchDispatchMode

IDS = torch.tensor([[5, 6, 7, 8, 9]])
VOCABULARY = 11
NONE = -100


def read(batch: Any) -> Batch:
    return read_batch(batch, VOCABULARY)


def row(*values: int) -> torch.Tensor:
    return torch.tensor([values])


@pytest.mark.parametrize(
    "bounds",
    [
        {"documents": [3, 2]},
        {"documents": torch.tensor([3, 0, 2])},
        {"cu_seq_lens": [0, 3, 5]},
        {"cu_seq_lens_q": torch.tensor([0, 3, 5], dtype=torch.int32)},
        {"cu_seq_lens_k": torch.tensor([[0, 3, 3, 5]])},
        {"seq_idx": row(0, 0, 0, 1, 1).int()},
        {"seq_idx": [[4, 4, 4, 7, 7]]},
        {"position_ids": row(0, 1, 2, 0, 1)},
        {
            "position_ids": row(0, 1, 2, 0, 1), "seq_idx": row(0, 0, 0, 1, 1), "cu_seq_lens_q": [0, 3, 5],
            "cu_seq_lens_k": [0, 3, 5], "max_length_q": 3, "max_length_k": torch.tensor(3),
            "attention_mask": torch.ones(1, 5, dtype=torch.int64),
        },
    ],
)  # fmt: skip
def test_every_key_that_bounds_documents_is_read(bounds: dict[str, Any]) -> None:
    batch = read({"input_ids": IDS, **bounds})
    assert batch.lengths == [3, 2]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.shift_labels.tolist() == [6, 7, NONE, 9, NONE]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seq_idx": row(0, 0, 0, 1, 1), "cu_seq_lens_q": [0, 2, 5]}, ["q and seq_idx", "[2, 3]", "[3, 2]"]),
        ({"cu_seq_lens_q": [0, 3, 5], "cu_seq_lens_k": [0, 5]}, ["cu_seq_lens_q and cu_seq_lens_k"]),
        ({"documents": [3, 2], "position_ids": row(0, 1, 2, 3, 4)}, ["documents and position_ids"]),
        ({"documents": [3, 2], "position_ids": row(0, 1, 2, 5, 6)}, ["must count from 0", "token 3 has 5"]),
        ({"position_ids": row(2, 3, 4, 5, 6)}, ["position_ids must count from 0", "token 0 has 2"]),
        ({"seq_idx": row(0, 0, 1, 1, 0)}, ["seq_idx must number", "token 4 has 0 behind 1"]),
        ({"documents": [2, 2]}, ["documents must divide the 5 tokens"]),
        ({"documents": [7, -2]}, ["documents must divide the 5 tokens"]),
        ({"documents": [2.5, 2.5]}, ["documents must be whole numbers"]),
        ({"cu_seq_lens": [3, 5]}, ["cu_seq_lens must begin with 0"]),
        ({"cu_seq_lens": [0, 3]}, ["cu_seq_lens must divide the 5 tokens"]),
        ({"cu_seq_lens": [0, 4, 3, 5]}, ["cu_seq_lens must divide"]),
        ({"documents": [3, 2], "max_length_q": 2}, ["max_length_q must be at least", "3 tokens, it is 2"]),
        ({"max_length_k": 4}, ["max_length_k must be at least the longest document's 5"]),
        ({"seq_idx": row(0, 0, 1)}, ["seq_idx must have a number for each token"]),
        ({"labels": row(5, 6)}, ["labels must have a number for each token"]),
        ({"labels": row(5, 6, 7, 8, 11)}, ["labels must be in 0..10", "is 11"]),
        ({"labels": row(5, 6, 7, 8, -1)}, ["labels must be in 0..10", "is -1"]),
        ({"labels": IDS.double()}, ["labels must be whole numbers", "float64"]),
        ({"labels": IDS, "shift_labels": row(6, 7, 8, 9, 9)}, ["shift_labels and labels must agree", "token 4"]),
        ({"loss_weights": row(1, 1, -1, 1, 1)}, ["loss_weights must be finite and at least 0, it has -1"]),
        ({"loss_weights": [[1, 1, float("nan"), 1, 1]]}, ["loss_weights must be finite"]),
        ({"loss_weights": row(1, 1)}, ["loss_weights must have a number for each token"]),
        ({"shift_labels": IDS, "loss_weights": IDS}, ["loss_weights goes with labels before the shift"]),
        ({"completion_mask": row(0, 1, 2, 1, 1)}, ["completion_mask must be 0 or 1, it has 2"]),
        ({"loss_mask": row(0, 1, 1, 1, 1)}, ["cannot hold loss_mask", "loss_weights"]),
        ({"token_type_ids": IDS, "tokens": IDS}, ["cannot hold token_type_ids, tokens"]),
        ({"attention_mask": row(1, 0, 1, 1, 1)}, ["padding at the ends of a row only, row 0"]),
        ({"attention_mask": row(1, 1, 1, 2, 2)}, ["1 for tokens and 0 for padding, it has 2", "seq_idx"]),
        ({"attention_mask": torch.ones(1, 1, 5, 5)}, ["attention_mask must have the shape of input_ids"]),
        ({"attention_mask": row(1, 1, 1, 0, 0), "labels": IDS}, ["labels must be -100 where attention_mask is 0"]),
        ({"attention_mask": row(1, 1, 1, 0, 0), "cu_seq_lens": [0, 3, 5]}, ["divide the 3 tokens", "padding"]),
        ({"num_items_in_batch": [4, 4]}, ["num_items_in_batch must be one number"]),
    ],
)  # fmt: skip
def test_keys_that_break_a_rule_or_disagree_are_named(keys: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(evenspan.InvalidArgumentError) as caught:
        read({"input_ids": IDS, **keys})
    assert str(caught.value).startswith("[shard] ")
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([[1.5, 2.5, 3.0]], "a document must be whole numbers"),
        ([[True, False]], "a document must be whole numbers"),
        ([[1, True]], "a document must be whole numbers, it holds torch.bool"),
        ([torch.tensor([1.0, 2.0])], "a document must be whole numbers, it holds torch.float32"),
        ([torch.tensor([1, 2]), torch.tensor([True])], "torch.bool"),
        ([np.array([1.0, 2.0])], "torch.float64"),
        ([[1, 2], [3, 11]], "token ids must be in 0..10, the model's vocabulary, number 3 is 11"),
        ([[1, -1]], "number 1 is -1"),
        ([[[1, 2]], [[3, 4]]], "a document must be a list of token ids"),
        ([torch.tensor([[1, 2], [3, 4]])], "document 0 is [2, 2]"),
        ([1, 2, 3], "a document must be a list of token ids, one is 1"),
        (["text"], "a document must be"),
        ([["text"]], "a document must be whole numbers"),
        ("text", "it is a str"),
        (IDS, "it is a Tensor"),
        (None, "it is a NoneType"),
        ((torch.tensor([1, 2]), torch.tensor([2, 3])), "it is a tuple"),
        ([], "must hold tokens"),
        ([[], []], "must hold tokens"),
        ({"labels": IDS}, "must hold input_ids"),
        ({"input_ids": IDS.float()}, "input_ids must be whole numbers"),
        ({"input_ids": IDS.bool()}, "input_ids must be whole numbers"),
        ({"input_ids": IDS[None]}, "input_ids must be [rows, tokens]"),
        ({"input_ids": [[1, 2], [3]]}, "input_ids must be whole numbers, in rows of one length"),
        ({"input_ids": [[1, 2], [3, True]]}, "torch.bool"),
        ({"input_ids": row(0, 0), "attention_mask": row(0, 0)}, "must hold tokens"),
    ],
)
def test_what_is_no_batch_is_refused(batch: Any, said: str) -> None:
    with pytest.raises(evenspan.InvalidArgumentError) as caught:
        read(batch)
    assert str(caught.value).startswith("[shard] ")
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
@pytest.mark.parametrize("mixed", [False, True])
def test_documents_may_be_lists_tensors_or_arrays(kind: Any, mixed: bool) -> None:
    second = [4, 5]
    batch = read([kind([1, 2, 3]), [], second if mixed else kind(second)])
    assert (batch.ids.tolist(), batch.lengths) == ([1, 2, 3, 4, 5], [3, 2])


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_rows_with_padding_are_documents(side: str) -> None:
    rows = {
        "left": [[0, 0, 1, 2, 3], [4, 5, 6, 7, 8], [0, 0, 0, 0, 9], [0] * 5],
        "right": [[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 0, 0, 0, 0], [0] * 5],
        "both": [[0, 1, 2, 3, 0], [4, 5, 6, 7, 8], [0, 0, 9, 0, 0], [0] * 5],
    }[side]
    ids = torch.tensor(rows)
    mask = ids != 0
    positions = (mask.cumsum(1) - 1).masked_fill(~mask, 1)  # as transformers numbers them
    for keys in (
        {"attention_mask": mask}, {"attention_mask": mask.double(), "position_ids": positions},
        {"attention_mask": mask.tolist(), "labels": ids.masked_fill(~mask, NONE)},
    ):  # fmt: skip
        batch = read({"input_ids": ids, **keys})
        assert batch.ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert batch.lengths == [3, 5, 1]
        assert batch.shift_labels.tolist() == [2, 3, NONE, 5, 6, 7, 8, NONE, NONE]


class Calls(TorchDispatchMode):
    """Counts torch's operations."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", ["lists", "tensors", "keys", "rows"])
def test_reading_calls_torch_as_often_for_many_documents_as_for_few(form: str) -> None:
    """Or packed batches of thousands of short documents are read for longer than they are computed."""
    counts = []
    for documents in (8, 800):
        ids = torch.arange(4 * documents).remainder(7)
        batch = {
            "lists": ids.view(-1, 4).tolist(),
            "tensors": list(ids.view(-1, 4)),
            "keys": {
                "input_ids": ids[None], "position_ids": torch.arange(4).repeat(documents)[None],
                "seq_idx": torch.arange(documents).repeat_interleave(4)[None],
                "cu_seq_lens_q": torch.arange(documents + 1) * 4,
            },
            "rows": {"input_ids": ids.view(-1, 4), "attention_mask": torch.ones(documents, 4)},
        }[form]  # fmt: skip
        with Calls() as calls:
            assert read(batch).lengths == [4] * documents
        counts.append(calls.count)
    assert counts[0] == counts[1]


def test_rows_may_hold_several_documents() -> None:
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    mask = ids != 0
    numbers = torch.tensor([[0, 0, 1, 1], [0, 0, 9, 9]])
    assert read({"input_ids": ids, "attention_mask": mask, "seq_idx": numbers}).lengths == [2, 2, 2]
    assert read({"input_ids": ids, "attention_mask": mask, "documents": [2, 2, 2]}).lengths == [2, 2, 2]
    assert read({"input_ids": ids}).lengths == [4, 4]  # what the model itself makes of it
    with pytest.raises(evenspan.InvalidArgumentError, match="a document must lie in one row"):
        read({"input_ids": ids, "attention_mask": mask, "documents": [3, 3]})


def test_weights_and_masks_of_labels() -> None:
    batch = read({"input_ids": IDS, "documents": [3, 2], "loss_weights": [[9, 0.5, 0, 9, 2]]})
    assert batch.shift_labels.tolist() == [6, 7, NONE, 9, NONE]
    assert batch.shift_weights is not None and batch.shift_weights.tolist() == [0.5, 0, 0, 2, 0]
    assert (batch.num_labels, batch.weight) == (3, 2.5)
    batch = read({"input_ids": IDS, "completion_mask": row(0, 0, 1, 1, 1), "assistant_masks": row(1, 1, 1, 0, 1)})
    assert batch.shift_labels.tolist() == [NONE, 7, NONE, 9, NONE]
    assert (batch.num_labels, batch.weight) == (2, 2)
    given = read({"input_ids": IDS, "documents": [3, 2], "shift_labels": row(6, NONE, 1, 9, 2)})
    assert given.shift_labels.tolist() == [6, NONE, 1, 9, 2]  # as they are, also for the last token of a document


def test_batches_that_differ_have_other_digests() -> None:
    first = read([[1, 2, 3], [4, 5]]).digests()
    given = {"input_ids": row(1, 2, 3, 4, 5), "documents": [3, 2]}
    for other, names in (
        ([[1, 2, 3], [4, 6]], {"the tokens", "the labels"}),
        ([[1, 2], [3, 4, 5]], {"the documents' lengths", "the labels"}),
        ({**given, "loss_weights": row(1, 1, 1, 1, 1)}, {"the labels' weights"}),
        (given, set()),
    ):  # fmt: skip
        assert {name for name, number in read(other).digests().items() if number != first[name]} == names
