"""Packed batches as loaders give them: token ids, labels, and where documents begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evenspan._errors import InvalidArgumentError, UnsupportedError

NO_LABEL = -100

KNOWN_KEYS = {
    "input_ids", "labels", "position_ids", "documents", "attention_mask", "seq_idx",
    "cu_seq_lens", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k",
}  # fmt: skip


class Batch:
    """A packed batch as a loader gives it: token ids [T] and labels [T] before the shift, and document lengths."""

    def __init__(self, ids: torch.Tensor, labels: torch.Tensor, lengths: list[int]) -> None:
        """Check the lengths, and shift the labels within each document."""
        self.ids = ids
        self.lengths = [length for length in lengths if length != 0]
        if sum(self.lengths) != ids.numel() or any(length < 0 for length in lengths):
            raise InvalidArgumentError(
                f"[shard] the documents' lengths must add up to the {ids.numel()} tokens, they are {lengths[:20]}"
            )
        if labels.numel() != ids.numel():
            raise InvalidArgumentError(
                f"[shard] there must be a label for each of the {ids.numel()} tokens, there are {labels.numel()}"
            )
        ends = torch.tensor(self.lengths, dtype=torch.int64).cumsum(0)
        self.shift_labels = torch.full_like(labels, NO_LABEL)
        self.shift_labels[:-1] = labels[1:]
        self.shift_labels[ends - 1] = NO_LABEL
        self.positions = torch.cat([torch.arange(length) for length in self.lengths] or [torch.empty(0).long()])


def _one_row(name: str, value: Any) -> torch.Tensor:
    """Return [1, T] or [T] as int64 [T] on the CPU."""
    tensor = torch.as_tensor(value).detach().cpu().to(torch.int64)
    if tensor.dim() == 2 and tensor.size(0) == 1:
        tensor = tensor[0]
    if tensor.dim() != 1:
        raise InvalidArgumentError(
            f"[shard] {name} must be one packed row, [1, tokens], it is {list(tensor.shape)}; pack the documents "
            "(transformers' DataCollatorWithFlattening does), or give a list of documents"
        )
    return tensor


def _lengths_of(batch: Mapping[str, Any], num_tokens: int) -> list[int]:
    if batch.get("documents") is not None:
        return [int(length) for length in batch["documents"]]
    for name in ("cu_seq_lens_q", "cu_seq_lens"):
        if batch.get(name) is not None:
            bounds = _one_row(name, batch[name])
            if bounds.numel() < 1 or bounds[0] != 0:
                raise InvalidArgumentError(f"[shard] {name} must begin with 0, it is {bounds.tolist()[:20]}")
            return [int(length) for length in bounds.diff()]
    if batch.get("position_ids") is not None:
        positions = _one_row("position_ids", batch["position_ids"])
        starts = (positions == 0).nonzero()[:, 0]
        lengths = torch.cat((starts, torch.tensor([positions.numel()]))).diff()
        expected = torch.cat([torch.arange(int(n)) for n in lengths] or [torch.empty(0).long()])
        if not torch.equal(positions, expected):
            raise InvalidArgumentError(
                "[shard] position_ids must count from 0 in every document; give `documents` (the lengths) otherwise"
            )
        return [int(length) for length in lengths]
    return [num_tokens]


def read_batch(batch: Any) -> Batch:
    """Read a dictionary of tensors, or a list of documents' tokens, as the loader gives it.

    Raises:
        InvalidArgumentError: What is there is not one packed row, or its lengths do not add up.
        UnsupportedError: There is an attention mask.
    """
    if isinstance(batch, Mapping):
        unknown = sorted(str(key) for key in set(batch.keys()).difference(KNOWN_KEYS))
        if unknown:
            raise InvalidArgumentError(f"[shard] a batch cannot hold {unknown}; known are {sorted(KNOWN_KEYS)}")
        if batch.get("attention_mask") is not None:
            raise UnsupportedError(
                "[shard] an attention_mask is not supported; give packed documents, which need neither mask nor padding"
            )
        if batch.get("input_ids") is None:
            raise InvalidArgumentError("[shard] a batch must hold input_ids")
        ids = _one_row("input_ids", batch["input_ids"])
        labels = ids if batch.get("labels") is None else _one_row("labels", batch["labels"])
        return Batch(ids, labels, _lengths_of(batch, ids.numel()))
    if isinstance(batch, torch.Tensor) or not isinstance(batch, Sequence):
        raise InvalidArgumentError(
            f"[shard] a batch must be a dictionary or a list of documents' tokens, it is a {type(batch).__name__}"
        )
    documents = [torch.as_tensor(document, dtype=torch.int64).flatten().cpu() for document in batch]
    ids = torch.cat(documents) if documents else torch.empty(0, dtype=torch.int64)
    return Batch(ids, ids, [document.numel() for document in documents])
