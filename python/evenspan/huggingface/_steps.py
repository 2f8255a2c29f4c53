"""Steps of an optimiser: the batches that share one loss, and whose gradients the parameters hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._gradients import local_of

AFTER_STEP = (
    "call reduce_gradients() once a step, where step_ends is true, then the optimizer's step() and zero_grad(); to "
    "accumulate the gradients of n batches, shard(loader, accumulate=n)"
)

WHEN_DETACHED = (
    "end a step (reduce_gradients() and the optimizer's step()) before the model is detached, or drop it: zero_grad()"
)


@dataclasses.dataclass(eq=False)
class TrainStep:
    """The batches whose losses are one: their labels, on all ranks of the group, share one divisor."""

    number: int  # of the context, from 1
    num_batches: int
    weight: float  # of the labels of all its batches
    source: object  # the loop over `shard` that it belongs to
    divisor: float | None = None  # the weight over all replicas as well, once it is known
    totals: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)  # this rank's weighted sum, by batch
    ran: set[int] = dataclasses.field(default_factory=set)  # batches whose backward began
    reduced: bool = False


@dataclasses.dataclass(eq=False)
class ShardedBatch:
    """This rank's part of a batch, as the loss needs it."""

    step: TrainStep
    index: int  # in its step
    shift_labels: torch.Tensor  # int64 [1, n]
    shift_weights: torch.Tensor | None  # float64 [1, n]
    loss_taken: bool = False  # with gradients

    @property
    def ends_step(self) -> bool:
        """Whether it is its step's last."""
        return self.index == self.step.num_batches - 1


class Ledger:
    """Knows whose gradients the parameters hold, and refuses what would mix them or use them too early."""

    def __init__(self) -> None:
        """Begin without gradients."""
        self._open: TrainStep | None = None  # some of its backward ran, and it is not reduced
        self._last_reduced = 0

    @property
    def is_open(self) -> bool:
        """Whether some backward of a step ran, and its gradients are not reduced."""
        return self._open is not None

    @property
    def has_begun(self) -> bool:
        """Whether a step began at all."""
        return self._open is not None or self._last_reduced > 0

    def begin_backward(self, batch: ShardedBatch, parameters: Iterable[torch.nn.Parameter], kept: bool) -> None:
        """Note that the backward of a batch begins.

        Args:
            batch: The batch.
            parameters: Of the model.
            kept: Whether gradients of a step's earlier batches are in the parameters, and not elsewhere until its end.

        Raises:
            InvalidArgumentError: The parameters hold gradients of another step, or lost those of this one.
        """
        step = batch.step
        if step.reduced:
            raise InvalidArgumentError(
                f"[backward] the gradients of step {step.number} are reduced already, its batch {batch.index + 1} of "
                f"{step.num_batches} cannot add to them; {AFTER_STEP}"
            )
        if self._open is not None and self._open is not step and self._open.source is step.source:
            raise InvalidArgumentError(
                f"[backward] the gradients of step {self._open.number} must be reduced before the backward of step "
                f"{step.number}; {AFTER_STEP}"
            )
        gradients = [local_of(p.grad) for p in parameters if p.grad is not None]
        if self._open is not step:
            if gradients and bool(torch.stack([g.any().to("cpu") for g in gradients]).any()):
                raise InvalidArgumentError(
                    f"[backward] a step must begin without gradients, at step {step.number} the parameters hold those "
                    + (f"of step {self._last_reduced}" if self._last_reduced else "of something else")
                    + f"; {AFTER_STEP}"
                )
            self._open = step
        elif kept and not gradients:
            raise InvalidArgumentError(
                f"[backward] the gradients of the {len(step.ran)} batches of step {step.number} that ran are gone; "
                "call zero_grad() only after reduce_gradients()"
            )
        step.ran.add(batch.index)

    def end_step(self) -> TrainStep:
        """Return the step whose gradients the parameters hold, all of them; it is then reduced.

        Raises:
            InvalidArgumentError: There is none, or some of its batches did not run.
        """
        step = self._open
        if step is None:
            raise InvalidArgumentError(
                "[reduce_gradients] there must be gradients to reduce, "
                + (f"those of step {self._last_reduced} are reduced already" if self._last_reduced else "no loss ran")
                + "; call it once after the backward of a step's last batch"
            )
        if len(step.ran) < step.num_batches:
            raise InvalidArgumentError(
                f"[reduce_gradients] all batches of a step must have run, of the {step.num_batches} of step "
                f"{step.number} {len(step.ran)} did; call it where step_ends is true"
            )
        self._open = None
        self._last_reduced = step.number
        step.reduced = True
        return step

    def refuse_unreduced(self, *, detached: bool = False) -> None:
        """Refuse to use gradients that are not reduced.

        Args:
            detached: Whether the model was detached meanwhile.

        Raises:
            InvalidArgumentError: There are such.
        """
        if self._open is not None:
            raise InvalidArgumentError(
                f"[optimizer.step] the gradients of step {self._open.number} are not reduced, of its "
                f"{self._open.num_batches} batches {len(self._open.ran)} ran"
                + (f" before the model was detached; {WHEN_DETACHED}" if detached else f"; {AFTER_STEP}")
            )
