"""Batches of a loader, spread over the ranks: steps, plans ahead of their turn, and this rank's rows."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from evenspan import _evenspan, _sharding
from evenspan._errors import Error, InvalidArgumentError
from evenspan.huggingface._attention import NAME, Step
from evenspan.huggingface._batches import NO_LABEL, PARTS, Batch
from evenspan.huggingface._loader import Loader, StepRule
from evenspan.huggingface._plans import Plans
from evenspan.huggingface._steps import ShardedBatch, TrainStep


class Sharder:
    """Deals out batches, and knows those that it dealt.

    Attributes:
        plan: Of the last batch.
        num_labels: Of the last batch, on all ranks.
        label_weight: The sum of their weights.
    """

    def __init__(self, model: Any, communicator: _evenspan.Communicator, plans: Plans, vocabulary: int) -> None:
        """Deal to the ranks of a communicator, on the model's device; token ids are below `vocabulary`."""
        self._model = model
        self._communicator = communicator
        self._plans = plans
        self._vocabulary = vocabulary
        self._sharded: weakref.WeakKeyDictionary[Step, ShardedBatch] = weakref.WeakKeyDictionary()
        self._num_batches = 0  # compared so far
        self._num_steps = 0
        self.plan: _evenspan.Plan | None = None
        self.num_labels = 0
        self.label_weight = 0.0

    def shard(self, batches: Iterable[Any], rule: StepRule, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Yield this rank's part of every batch, each after a `check` by the caller; see `Context.shard`."""
        loader = Loader(batches, rule, self._vocabulary, self._plans.micro_batches)
        source = object()
        if loader.following is not None:
            self._prefetch(loader.following)
        while step_batches := loader.next_step():
            self._num_steps += 1
            step = TrainStep(self._num_steps, len(step_batches), sum(batch.weight for batch in step_batches), source)
            for i, batch in enumerate(step_batches):
                check()
                plans = self._plans.plans(batch.lengths)
                sharded = self._shard_one(batch, plans, step, i)
                if i + 1 < len(step_batches):
                    loader.take()
                    following: Batch | None = step_batches[i + 1]
                else:
                    loader.prepare()
                    following = loader.following
                if following is not None:
                    self._prefetch(following)
                yield sharded
        self._compare(None)

    def _prefetch(self, batch: Batch) -> None:
        with contextlib.suppress(Error):  # `plans` raises it again, in the batch's turn
            self._plans.prefetch(batch.lengths)

    def _shard_one(self, batch: Batch, plans: dict[int, _evenspan.Plan], step: TrainStep, index: int) -> dict[str, Any]:
        device = self._model.device
        self._compare(batch)
        attention = self._plans.step(plans, device)
        plan = next(iter(plans.values()))  # all have its placement
        rows = _sharding.rows_of(plan, self._communicator.rank)

        def take(tensor: torch.Tensor, dummy: float) -> torch.Tensor:
            local = tensor[rows] if rows.numel() > 0 else torch.tensor([dummy], dtype=tensor.dtype)
            return local.unsqueeze(0).to(device)

        self.plan = plan
        self.num_labels = batch.num_labels
        self.label_weight = batch.weight
        weights = batch.shift_weights
        sharded = ShardedBatch(
            step, index, take(batch.shift_labels, NO_LABEL), None if weights is None else take(weights, 0.0)
        )
        self._sharded[attention] = sharded
        return {
            "input_ids": take(batch.ids, 0),
            "position_ids": take(batch.positions, 0),
            "shift_labels": sharded.shift_labels,
            "use_cache": False,
            NAME: attention,
        }

    def _compare(self, batch: Batch | None) -> None:
        """Compare what the ranks are about to run, None at a loader's end, and the calls that they have made so far.

        Raises:
            CommunicationError: They differ; on every rank.
        """
        self._num_batches += 1
        if self._communicator.size == 1:
            return
        parts = {
            "the calls before": self._communicator.call_hash,
            "how many batches there were": self._num_batches,
            "whether there is one more": int(batch is not None),
            **(dict.fromkeys(PARTS, 0) if batch is None else batch.digests()),
        }
        self._communicator.compare(
            list(parts.items()),
            operation="shard",
            things="batches",
            remedy="let the loader give the same ones to all ranks of the group (no distributed sampler), and take as "
            "many of them on each",
            device=str(self._model.device),
        )

    def batch_of(self, step: Step) -> ShardedBatch:
        """Return the batch that carries this to the attention function."""
        sharded = self._sharded.get(step)
        if sharded is None:
            raise InvalidArgumentError(
                "[attention] a batch must come from the shard of the context that the model is attached to, this one "
                "comes from another; attach anew and shard again"
            )
        return sharded
