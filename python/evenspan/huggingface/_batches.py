"""Batches as loaders give them: token ids, labels, their weights, and where documents begin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._bounds import LONGEST, PREFIXES, lengths_of, real_tokens
from evenspan.huggingface._values import document_ids, integers, one_integer, weights

NO_LABEL = -100

MASKS = ("completion_mask", "assistant_masks")  # of the tokens that count, as TRL names them

KNOWN_KEYS = {
    "input_ids", "labels", "shift_labels", "loss_weights", *MASKS, "position_ids", "documents", "attention_mask",
    "seq_idx", *PREFIXES, *LONGEST, "num_items_in_batch",
}  # fmt: skip


PARTS = ("the documents' lengths", "the tokens", "the labels", "the labels' weights")  # in which batches can differ


class Batch:
    """A batch as a loader gives it, without padding.

    Attributes:
        ids: Token ids of all documents, int64 [T].
        lengths: Of the documents, none of them 0.
        positions: Of the tokens in their documents, int64 [T].
        shift_labels: What each token must predict, NO_LABEL for nothing, int64 [T].
        shift_weights: What each of these counts, float64 [T]; None for 1 each.
        num_labels: How many there are.
        weight: The sum of their weights.
        num_items_in_batch: What the loader says that the labels of the step are, or None.
    """

    def __init__(
        self,
        ids: torch.Tensor,
        lengths: list[int],
        shift_labels: torch.Tensor,
        shift_weights: torch.Tensor | None,
        num_items_in_batch: int | None = None,
    ) -> None:
        """Take what `read_batch` read."""
        self.ids = ids
        self.lengths = lengths
        starts, repeats = _starts(lengths)
        self.positions = torch.arange(ids.numel()) - torch.repeat_interleave(starts, repeats)
        self.shift_labels = shift_labels
        self.shift_weights = shift_weights
        labelled = shift_labels != NO_LABEL
        self.num_labels = int(labelled.sum())
        self.weight = float(self.num_labels if shift_weights is None else shift_weights[labelled].sum())
        self.num_items_in_batch = num_items_in_batch

    def parts(self, documents: Sequence[Sequence[int]]) -> list[Batch]:
        """Return a batch of these of its documents for each of the lists, in their order."""

        def of_documents(values: torch.Tensor | None) -> list[torch.Tensor] | None:
            return None if values is None else list(torch.split(values, self.lengths))

        ids, labels, weights = map(of_documents, (self.ids, self.shift_labels, self.shift_weights))

        def taken(values: list[torch.Tensor] | None, chosen: Sequence[int]) -> Any:
            return None if values is None else torch.cat([values[d] for d in chosen])

        return [
            Batch(taken(ids, chosen), [self.lengths[d] for d in chosen], taken(labels, chosen), taken(weights, chosen))
            for chosen in documents
        ]

    def digests(self) -> dict[str, int]:
        """Return a number of 63 bits for each of PARTS."""
        weights = torch.empty(0) if self.shift_weights is None else self.shift_weights
        parts = (torch.tensor(self.lengths, dtype=torch.int64), self.ids, self.shift_labels, weights)
        return {
            name: int.from_bytes(hashlib.blake2b(part.contiguous().numpy().tobytes(), digest_size=8).digest()) >> 1
            for name, part in zip(PARTS, parts, strict=True)
        }


def join(batches: Sequence[Batch]) -> Batch:
    """Return a batch of the documents of all of them."""
    weights = None
    if any(batch.shift_weights is not None for batch in batches):
        weights = torch.cat(
            [
                torch.ones(batch.ids.numel(), dtype=torch.float64)
                if batch.shift_weights is None
                else batch.shift_weights
                for batch in batches
            ]
        )
    return Batch(
        torch.cat([batch.ids for batch in batches]),
        [length for batch in batches for length in batch.lengths],
        torch.cat([batch.shift_labels for batch in batches]),
        weights,
    )


def _starts(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    repeats = torch.tensor(lengths, dtype=torch.int64)
    return repeats.cumsum(0) - repeats, repeats


def shifted(values: torch.Tensor, lengths: list[int], nothing: float) -> torch.Tensor:
    """Return for each token the value of the next one of its document, `nothing` for the last."""
    starts, repeats = _starts(lengths)
    result = torch.full_like(values, nothing)
    result[:-1] = values[1:]
    result[starts + repeats - 1] = nothing
    return result


def _refuse_beyond(name: str, values: torch.Tensor, vocabulary: int | None) -> None:
    if vocabulary is None:
        return
    wrong = ((values < 0) | (values >= vocabulary)).nonzero()
    if wrong.numel() > 0:
        at = int(wrong[0])
        raise InvalidArgumentError(
            f"[shard] {name} must be in 0..{vocabulary - 1}, the model's vocabulary, number {at} is {int(values[at])}; "
            "use the model's tokenizer"
        )


def read_batch(batch: Any, vocabulary: int | None = None) -> Batch:
    """Read a dictionary of tensors, or a list of documents' tokens, as the loader gives it.

    Every key is read; what they say must agree.

    Args:
        batch: See `Context.shard`.
        vocabulary: Token ids and labels are below it; None does not check that.

    Raises:
        InvalidArgumentError: A key is unknown or breaks its rule, keys disagree, or there is no token.
    """
    if isinstance(batch, Mapping):
        read = _read_mapping(batch)
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes | tuple):
        single = next((d for d in batch if not isinstance(d, Sequence) and getattr(d, "ndim", 0) == 0), None)
        if single is not None:
            raise InvalidArgumentError(
                f"[shard] a document must be a list of token ids, one is {single!r}; a batch is a list of documents, "
                "also where it has only one"
            )
        ids, lengths = document_ids(batch)
        lengths = [length for length in lengths if length > 0]
        read = Batch(ids, lengths, shifted(ids, lengths, NO_LABEL), None)
    else:
        raise InvalidArgumentError(  # a tuple is mostly (inputs, labels), and no two documents
            f"[shard] a batch must be a dictionary or a list of documents' tokens, it is a {type(batch).__name__}; "
            'name the tokens: {"input_ids": ...}'
        )
    if read.ids.numel() == 0:
        raise InvalidArgumentError("[shard] a batch must hold tokens, it has none; leave empty batches out")
    _refuse_beyond("token ids", read.ids, vocabulary)
    _refuse_beyond("labels", read.shift_labels[read.shift_labels != NO_LABEL], vocabulary)
    return read


def _read_mapping(batch: Mapping[str, Any]) -> Batch:
    unknown = sorted(str(key) for key in set(batch.keys()).difference(KNOWN_KEYS))
    if unknown:
        raise InvalidArgumentError(
            f"[shard] a batch cannot hold {', '.join(unknown)}; known are {', '.join(sorted(KNOWN_KEYS))}; weights of "
            "labels are loss_weights, one for each token, before the shift"
        )
    if batch.get("input_ids") is None:
        raise InvalidArgumentError(f"[shard] a batch must hold input_ids, it has {', '.join(batch) or 'nothing'}")
    rows = integers("input_ids", batch["input_ids"])
    if rows.dim() == 1:
        rows = rows.unsqueeze(0)
    if rows.dim() != 2:
        raise InvalidArgumentError(f"[shard] input_ids must be [rows, tokens], it is {list(rows.shape)}")
    real = real_tokens(batch.get("attention_mask"), rows.shape)

    def in_rows(name: str, values: torch.Tensor) -> torch.Tensor:
        if values.dim() == 1 and rows.size(0) == 1:
            values = values.unsqueeze(0)
        if values.shape != rows.shape:
            raise InvalidArgumentError(
                f"[shard] {name} must have a number for each token, {list(rows.shape)} as input_ids, it is "
                f"{list(values.shape)}"
            )
        return values

    def of_tokens(name: str) -> torch.Tensor:
        return in_rows(name, integers(name, batch[name]))[real]

    ids = rows[real]
    lengths = lengths_of(batch, real, of_tokens)
    for name in ("labels", "shift_labels"):
        if batch.get(name) is not None:
            padding = in_rows(name, integers(name, batch[name]))[~real]
            if (padding != NO_LABEL).any():
                raise InvalidArgumentError(
                    f"[shard] {name} must be {NO_LABEL} where attention_mask is 0, one is "
                    f"{int(padding[padding != NO_LABEL][0])}; padding must not count in the loss"
                )
    shift_labels = _shift_labels(batch, ids, lengths, of_tokens)
    shift_weights = None
    for name in ("loss_weights", *MASKS):
        if batch.get(name) is None:
            continue
        if batch.get("labels") is None and batch.get("shift_labels") is not None:
            raise InvalidArgumentError(
                f"[shard] {name} goes with labels before the shift, the batch has shift_labels alone; give labels"
            )
        given = in_rows(name, weights(name, batch[name]))[real]
        if name in MASKS and not ((given == 0) | (given == 1)).all():
            raise InvalidArgumentError(
                f"[shard] {name} must be 0 or 1, it has {given[(given != 0) & (given != 1)][0].item()}; "
                "give loss_weights"
            )
        given = shifted(given, lengths, 0.0)
        if name in MASKS:
            shift_labels = torch.where(given == 1, shift_labels, NO_LABEL)
        else:
            shift_weights = given
    items = batch.get("num_items_in_batch")
    return Batch(
        ids, lengths, shift_labels, shift_weights, None if items is None else one_integer("num_items_in_batch", items)
    )


def _shift_labels(
    batch: Mapping[str, Any], ids: torch.Tensor, lengths: list[int], of_tokens: Callable[[str], torch.Tensor]
) -> torch.Tensor:
    """Return what each token must predict: the given one, or the shifted labels, or the shifted ids."""
    given = None if batch.get("shift_labels") is None else of_tokens("shift_labels")
    if given is not None and batch.get("labels") is None:
        return given
    labels = ids if batch.get("labels") is None else of_tokens("labels")
    made = shifted(labels, lengths, NO_LABEL)
    if given is not None and not torch.equal(given, made):
        at = int((given != made).nonzero()[0])
        raise InvalidArgumentError(
            f"[shard] shift_labels and labels must agree, for token {at} they are {int(given[at])} and, shifted inside "
            f"its document, {int(made[at])}; give one of them"
        )
    return made
