"""A loader's batches, taken a step ahead, so that a step's labels are known before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from evenspan._arguments import described, integer_or_none
from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._batches import Batch, join, read_batch

# Lengths, most tokens of a micro-batch, a planner: the documents of each micro-batch.
Cut = Callable[[list[int], int, str], list[list[int]]]


def _positive(name: str, value: Any, unit: str, remedy: str) -> int:
    """Return an integer of Python, NumPy or torch; raise InvalidArgumentError where it is none or below 1."""
    number = integer_or_none(value, 64)
    if number is None or number < 1:
        raise InvalidArgumentError(
            f"[shard] {name} must be a whole number of {unit}, at least 1 and of 64 bits, it is {described(value)}; "
            f"{remedy}"
        )
    return number


@dataclasses.dataclass
class StepRule:
    """Which of a loader's batches are a step, and what runs at once.

    Attributes:
        accumulate: Batches of a step, the last one may have fewer; None where tokens end it, or for 1.
        global_batch_tokens: Most tokens of a step: the batch that would make it more opens the next one.
        micro_batch_tokens: Most tokens of what runs at once, over all ranks: a step's documents are dealt anew. None
            leaves the batches as they are.
        batch_planner: Who deals them.
    """

    accumulate: int | None = None
    global_batch_tokens: int | None = None
    micro_batch_tokens: int | None = None
    batch_planner: str = "auto"

    def check(self) -> None:
        """Make numbers those of Python; refuse what is no number, and numbers that contradict each other.

        Raises:
            InvalidArgumentError: Says which.
        """
        if self.accumulate is not None:
            remedy = "leave it out for steps of one batch"
            self.accumulate = _positive("accumulate", self.accumulate, "batches", remedy)
        for name in ("global_batch_tokens", "micro_batch_tokens"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, _positive(name, value, "tokens", "leave it out where there is no limit"))
        if self.accumulate is not None and self.global_batch_tokens is not None:
            raise InvalidArgumentError(
                f"[shard] a step ends after accumulate={self.accumulate} batches or before it has more than "
                f"global_batch_tokens={self.global_batch_tokens}; give one of them"
            )
        if not isinstance(self.batch_planner, str):
            raise InvalidArgumentError(
                f"[shard] batch_planner must be a text, it is {described(self.batch_planner)}; give 'auto'"
            )
        if self.batch_planner != "auto" and self.micro_batch_tokens is None:
            raise InvalidArgumentError(
                f"[shard] batch_planner must be left out without micro_batch_tokens, it is {self.batch_planner!r}; "
                "give both"
            )


class Loader:
    """Reads the batches of a loader. What it, the reading or the dealing raises is raised in the turn of its step."""

    def __init__(self, batches: Iterable[Any], rule: StepRule, vocabulary: int, cut: Cut) -> None:
        """Take the batches of the first step.

        Args:
            batches: What the caller gave.
            rule: Of the steps.
            vocabulary: Of the model.
            cut: Deals a step's documents to micro-batches.

        Raises:
            InvalidArgumentError: The rule cannot be, or `batches` are no batches.
        """
        rule.check()
        if isinstance(batches, dict) or not isinstance(batches, Iterable):
            raise InvalidArgumentError(
                f"[shard] a loader of batches is needed, it is a {type(batches).__name__}; one batch is shard([batch])"
            )
        self._source = iter(batches)
        self._rule = rule
        self._vocabulary = vocabulary
        self._cut = cut
        self._ahead: list[Batch] = []  # of the next step, and the one that opens the step after it
        self._error: Exception | None = None  # after these
        self._ended = False
        self._next: list[Batch] | None = None  # what runs in the next step, once it is dealt
        self.prepare()

    @property
    def _num_tokens(self) -> int:
        return sum(batch.ids.numel() for batch in self._ahead)

    @property
    def _is_whole(self) -> bool:
        """Whether nothing more belongs to the next step."""
        limit = self._rule.global_batch_tokens
        if self._ended or self._error is not None:
            return True
        return len(self._ahead) >= (self._rule.accumulate or 1) if limit is None else self._num_tokens > limit

    def take(self) -> None:
        """Take one batch more, if the next step has not all of its."""
        if self._next is not None or self._is_whole:
            return
        try:
            self._ahead.append(read_batch(next(self._source), self._vocabulary))
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._error = error

    def prepare(self) -> None:
        """Take all batches of the next step, and deal its documents."""
        while self._next is None and self._error is None:
            if self._is_whole:
                try:
                    self._next = self._deal()
                except Exception as error:
                    self._error = error
            else:
                self.take()

    def _deal(self) -> list[Batch]:
        limit = self._rule.global_batch_tokens
        size = len(self._ahead)
        if limit is not None and self._num_tokens > limit:
            size -= 1
            if size == 0:
                raise InvalidArgumentError(
                    f"[shard] a batch must have no more tokens than a step, it has {self._num_tokens}, and "
                    f"global_batch_tokens is {limit}; raise that, or give smaller batches"
                )
        step, self._ahead = self._ahead[:size], self._ahead[size:]
        labels = sum(batch.num_labels for batch in step)
        for batch in step:
            if batch.num_items_in_batch not in (None, labels):
                raise InvalidArgumentError(
                    f"[shard] num_items_in_batch must be the {labels} labels of the step's {len(step)} batches, it is "
                    f"{batch.num_items_in_batch}; leave it out, and give shard(loader, accumulate=n) for n batches a "
                    "step"
                )
        if self._rule.micro_batch_tokens is None or not step:
            return step
        whole = join(step)
        dealt = self._cut(whole.lengths, self._rule.micro_batch_tokens, self._rule.batch_planner)
        return whole.parts(dealt)

    def next_step(self) -> list[Batch]:
        """Return what runs in the next step, nothing at the end.

        Raises:
            Exception: What was raised for one of its batches.
            InvalidArgumentError: A batch's `num_items_in_batch` is not the number of the step's labels.
        """
        self.prepare()
        if self._error is not None:
            raise self._error
        step, self._next = self._next or [], None
        return step

    @property
    def following(self) -> Batch | None:
        """What runs first in the next step, None if there is none or it is not known."""
        first = self._next or ([] if self._rule.micro_batch_tokens is not None else self._ahead)
        return first[0] if first and self._error is None else None
