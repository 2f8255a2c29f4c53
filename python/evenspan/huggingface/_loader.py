"""A loader's batches, taken a step ahead, so that a step's labels are known before it begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from evenspan._arguments import described
from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._batches import Batch, read_batch


class Loader:
    """Reads the batches of a loader. What it or the reading raises is raised in the turn of its step."""

    def __init__(self, batches: Iterable[Any], accumulate: int, vocabulary: int) -> None:
        """Take the batches of the first step.

        Args:
            batches: What the caller gave.
            accumulate: Batches of a step, the last one may have fewer.
            vocabulary: Of the model.

        Raises:
            InvalidArgumentError: `accumulate` is no positive whole number, or `batches` are no batches.
        """
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise InvalidArgumentError(
                f"[shard] accumulate must be a whole number of batches, at least 1, it is {described(accumulate)}; "
                "leave it out for steps of one batch"
            )
        if isinstance(batches, dict) or not isinstance(batches, Iterable):
            raise InvalidArgumentError(
                f"[shard] a loader of batches is needed, it is a {type(batches).__name__}; one batch is shard([batch])"
            )
        self._source = iter(batches)
        self._accumulate = accumulate
        self._vocabulary = vocabulary
        self._ahead: deque[Batch | Exception] = deque()
        self._ended = False
        self._index = 0
        for _ in range(accumulate):
            self.take()

    def take(self) -> None:
        """Take one batch more, if there is one."""
        if self._ended:
            return
        try:
            batch = read_batch(next(self._source), self._vocabulary)
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ahead.append(error)
            self._ended = True
        else:
            self._ahead.append(batch)

    def next_step(self) -> list[Batch]:
        """Return the batches of the next step, none at the end.

        Raises:
            Exception: What was raised for one of them.
            InvalidArgumentError: A batch's `num_items_in_batch` is not the number of the step's labels.
        """
        step: list[Batch] = []
        while self._ahead and len(step) < self._accumulate:
            batch = self._ahead.popleft()
            if isinstance(batch, Exception):
                raise batch
            step.append(batch)
        labels = sum(batch.num_labels for batch in step)
        for batch in step:
            if batch.num_items_in_batch not in (None, labels):
                raise InvalidArgumentError(
                    f"[shard] num_items_in_batch must be the {labels} labels of the step's {len(step)} batches, it is "
                    f"{batch.num_items_in_batch}; leave it out, and give shard(loader, accumulate=n) for n batches a "
                    "step"
                )
        return step

    @property
    def following(self) -> Batch | None:
        """The batch after those of the last step, None if there is none or it cannot be read."""
        first = self._ahead[0] if self._ahead else None
        return first if isinstance(first, Batch) else None
