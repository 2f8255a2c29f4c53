"""The Context: a model that is attached to a group of ranks, its batches, loss and gradients."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from evenspan import _evenspan
from evenspan._arguments import described
from evenspan._errors import InvalidArgumentError
from evenspan._groups import CALLER, communicator_of, tell_all
from evenspan.huggingface._attention import NAME, Step
from evenspan.huggingface._gradients import sum_gradients
from evenspan.huggingface._hooks import Attachment, attachment_of, batch_of, hear_scale, logits_of
from evenspan.huggingface._interface import implementations, set_attention
from evenspan.huggingface._loader import StepRule
from evenspan.huggingface._loss import cross_entropy_sum
from evenspan.huggingface._models import vocabulary_of
from evenspan.huggingface._plans import Plans
from evenspan.huggingface._sharder import Sharder
from evenspan.huggingface._steps import Ledger, ShardedBatch, TrainStep
from evenspan.huggingface._wrappers import Averaging, agree, averaging_of, runnable


def _warn_of_scale(num_batches: int, scale: float) -> None:
    if scale == 1 / num_batches:
        warnings.warn(
            f"[loss] the losses of a step's {num_batches} batches are divided by the labels of all of them already, "
            f"this one was multiplied by 1/{num_batches} as well; do not divide it (nor let accelerate do so: "
            "gradient_accumulation_steps=1)",
            stacklevel=2,
        )


class Context:
    """A model attached to a group of ranks. Made by `attach`.

    As a context manager it makes the ranks fail together: an exception that leaves the block on one rank (from the
    loader, the model, the loop's body) is a CommunicationError that names this rank and the exception on all others, as
    soon as they wait for it in evenspan; the group is then lost to evenspan. Without the block that holds only for
    exceptions that end the process. The end of the block detaches the model.
    """

    def __init__(
        self,
        model: Any,
        given: Any,
        config: Any,
        group: dist.ProcessGroup | None,
        average: bool,
        plans: Plans,
        before: list[tuple[Any, Any]],
    ) -> None:
        """Use `attach`."""
        self._model = model
        self._given = given
        self._config = config
        self._group = group
        self._communicator = communicator_of(group)
        self._average = average
        self._plans = plans
        self._sharder = Sharder(model, self._communicator, plans, vocabulary_of(model, config))
        self._ledger = Ledger()
        self._averaging: Averaging | None = None  # of the last forward with gradients
        self._heard_scale = False  # of a loss in a step of several batches
        self._trained: ShardedBatch | None = None  # whose loss was taken last with gradients
        self._weighed: ShardedBatch | None = None  # or without
        self._attachment: Attachment | None = Attachment(model, self, self._ledger, before)

    def __enter__(self) -> Self:
        """Begin a block whose exceptions reach all ranks."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the other ranks of the exception, if there is one, which goes on; detach the model."""
        if error is not None:
            tell_all(self._communicator, CALLER, error)
        if self._is_attached:
            self.detach()

    def detach(self) -> None:
        """Give the model its former attention back; nothing of this context is left in it.

        Gradients of a step that is not over stay where they are, and are refused by the optimizer until they are
        dropped (`zero_grad()`).

        Raises:
            InvalidArgumentError: It is detached already, or was attached anew.
        """
        self._own_attachment("detach").remove()
        self._attachment = None

    @contextlib.contextmanager
    def detached(self) -> Iterator[None]:
        """Give the model its former attention back for a block: `with context.detached(): model.generate(...)`.

        Nothing in the block is shared with other ranks: each may do something else there, or nothing. A step that was
        begun goes on behind the block; its gradients are not for the optimizer inside.

        Raises:
            InvalidArgumentError: The context is detached.
        """
        self.detach()
        try:
            yield
        finally:
            if attachment_of(self._model) is not None:
                raise InvalidArgumentError(
                    "[detached] the model must not be attached again inside the block; leave the block before"
                )
            before = implementations(self._model)
            set_attention(self._model, self._config, NAME)
            self._attachment = Attachment(self._model, self, self._ledger, before)

    @property
    def _is_attached(self) -> bool:
        return self._attachment is not None and attachment_of(self._model) is self._attachment

    def _own_attachment(self, operation: str) -> Attachment:
        if self._attachment is None or not self._is_attached:
            what = "detached" if self._attachment is None else "attached by another context since"
            raise InvalidArgumentError(f"[{operation}] the model must be attached, it was {what}; use evenspan.attach")
        return self._attachment

    def _require_attached(self, operation: str) -> None:
        self._own_attachment(operation)
        if self._config._attn_implementation != NAME:
            raise InvalidArgumentError(
                f"[{operation}] an attached model must keep evenspan's attention, its implementation was set to "
                f"{self._config._attn_implementation!r}; attach it again"
            )

    @property
    def plan(self) -> _evenspan.Plan | None:
        """The plan of the batch that `shard` yielded last."""
        return self._sharder.plan

    @property
    def num_labels(self) -> int:
        """Labels of that batch on all ranks."""
        return self._sharder.num_labels

    @property
    def label_weight(self) -> float:
        """The sum of their weights."""
        return self._sharder.label_weight

    @property
    def step_ends(self) -> bool:
        """Whether the batch whose loss was taken last, evaluation aside, is the last of its step."""
        return self._trained is not None and self._trained.ends_step

    @property
    def averaging_ranks(self) -> int:
        """Ranks over which a wrapper averages the gradients of the last forward: what a loss was multiplied by."""
        return self._averaged.size

    @property
    def planning(self) -> dict[str, int]:
        """Counts of `shard` so far.

        `made` plans, `made_ahead` of these while another batch ran or was awaited, `hits`: batches of lengths that were
        planned already; `ready` and `waits`: batches whose plan was there or was waited for when its turn came.
        """
        return self._plans.counts

    def shard(
        self,
        batches: Iterable[Any],
        accumulate: int | None = None,
        *,
        global_batch_tokens: int | None = None,
        micro_batch_tokens: int | None = None,
        batch_planner: str = "auto",
    ) -> Iterator[dict[str, Any]]:
        """Yield this rank's part of every batch, for `model(**batch)`.

        `accumulate` batches are a step, or as many as have `global_batch_tokens` together: their losses add up to the
        mean over the labels of all of them, and their gradients are reduced once. The loader's last step may have
        fewer. With `micro_batch_tokens` a step's documents are dealt anew, to micro-batches that `batch_planner` makes.

        While a batch runs, the next one is planned on a thread. A step's batches are taken from the loader while the
        step before runs; what the loader, the reading or the planning raises is raised in their turn. A loop that ends
        early has taken `accumulate` batches more than it used.

        Args:
            batches: A loader that gives every rank of the group the same batches. A batch is a list of documents (each
                a list or tensor of token ids), or a dictionary with `input_ids` [rows, T]. A row is one document,
                unless something says where its documents begin: `documents` (lengths), `cu_seq_lens`, `cu_seq_lens_q`,
                `cu_seq_lens_k`, `seq_idx` [rows, T], or `position_ids` [rows, T] that begin at 0 in every document.
                `attention_mask` [rows, T] is 0 for padding at either end of a row. `labels` [rows, T] (not shifted,
                -100 for none) are `input_ids` by default; `shift_labels` [rows, T] are taken as they are;
                `loss_weights` [rows, T] weigh the labels (before the shift), `completion_mask` and `assistant_masks`
                are 0 for labels that do not count. `max_length_q`, `max_length_k` and `num_items_in_batch` (labels of
                the step) must be true. Empty documents are dropped.
            accumulate: Batches of a step, 1 by default.
            global_batch_tokens: Most tokens of a step instead; the batch that would make it more opens the next one.
            micro_batch_tokens: Most tokens of all ranks in what is yielded at once.
            batch_planner: Who deals a step's documents to micro-batches: one of `evenspan batch --help` that needs no
                solver. It goes by the times of the profile of `attach`, or without one by operations.

        Yields:
            `input_ids`, `position_ids` and `shift_labels`, int64 [1, n] on the model's device (n is 1 with no label
            where the plan gives this rank nothing), and what the attention function needs.

        Raises:
            InvalidArgumentError: A batch is empty, breaks a rule above, or its keys disagree; other ranks then hear of
                it in a `with` block of the context.
            CommunicationError: The ranks got different batches.
        """
        self._require_attached("shard")
        rule = StepRule(accumulate, global_batch_tokens, micro_batch_tokens, batch_planner)
        yield from self._sharder.shard(batches, rule, lambda: self._require_attached("shard"))

    def batch_of(self, step: Step) -> ShardedBatch:
        """Return the batch that carries this to the attention function; for the model's hooks."""
        return self._sharder.batch_of(step)

    def begin_forward(self, step: Step) -> None:
        """Check that the batch may run, and find who averages its gradients; for the model's hooks."""
        sharded = self.batch_of(step)
        if torch.is_grad_enabled():
            found = averaging_of(self._model, self._group, ends_step=sharded.ends_step, by_others=self._average)
            if found != self._averaging:
                agree(found, self._group, self._communicator, self._model.device)
            self._averaging = found

    def begin_backward(self, batch: ShardedBatch) -> None:
        """Hear that the backward of a batch begins; for the model's hooks."""
        self._ledger.begin_backward(batch, self._model.parameters(), self._averaged.keeps)

    @property
    def _averaged(self) -> Averaging:
        return self._averaging if self._averaging is not None else Averaging("")

    def loss(self, outputs: Any, batch: dict[str, Any] | None = None) -> torch.Tensor:
        """Return this rank's share of the one loss of a step, for a batch of it.

        The shares of all ranks and of all batches of the step add up to the weighted mean cross entropy (natural
        logarithm; log-softmax in float32, float64 for float64 logits) over all labels of the step; 0 for a step without
        labels. Where a wrapper averages gradients, the share is multiplied by the number of its ranks, and a step is
        that of all its replicas.

        Args:
            outputs: What the model returned: has `logits` [1, n, vocabulary], or is the logits.
            batch: The batch, needed only for logits that were computed from the model's without gradients.

        Raises:
            InvalidArgumentError: It is not known whose outputs they are, they are not this batch's, or their loss was
                taken already.
        """
        self._require_attached("loss")
        logits = logits_of(outputs)
        found = batch_of(logits)
        if batch is not None:
            if not isinstance(batch, dict) or not isinstance(batch.get(NAME), Step):
                raise InvalidArgumentError(
                    f"[loss] batch must be one of shard, it is {described(batch)}; give what shard yielded, or leave "
                    "it out"
                )
            named = self.batch_of(batch[NAME])
            if found not in (None, named):
                raise InvalidArgumentError(
                    "[loss] outputs and batch must belong together, the outputs are another batch's"
                )
            found = named
        if found is None:
            raise InvalidArgumentError(
                "[loss] outputs must be what the attached model returned for a batch of shard, or computed from that; "
                "without gradients give the batch too: loss(outputs, batch)"
            )
        total = cross_entropy_sum(logits, found.shift_labels, found.shift_weights)
        step = found.step
        trains = torch.is_grad_enabled() and total.requires_grad
        if trains and found.loss_taken:
            raise InvalidArgumentError(
                f"[loss] the loss of a batch must be taken once, that of batch {found.index + 1} of step {step.number} "
                "was taken already; keep it"
            )
        step.totals[found.index] = total.detach()
        self._weighed = found
        if not trains:
            return total / step.weight if step.weight > 0 else total * 0
        found.loss_taken = True
        self._trained = found
        averaging = self._averaged
        if step.divisor is None:
            step.divisor = self._divisor(step)
        share = total * (averaging.size / step.divisor if step.divisor > 0 else 0)
        if step.num_batches == 1 or self._heard_scale:
            return share
        self._heard_scale = True  # once
        return hear_scale(share, functools.partial(_warn_of_scale, step.num_batches))

    def _divisor(self, step: TrainStep) -> float:
        """Return the weight of a step's labels in all replicas, which must have as many batches in it."""
        count = step.num_batches
        weight, replicas, counts, squares = self._averaged.over_replicas(
            step.weight, 1, count, count**2, device=self._model.device
        )
        if (counts, squares) != (replicas * count, replicas * count**2):  # then no replica has the mean of both
            raise InvalidArgumentError(
                f"[loss] all replicas must have as many batches in a step, since {self._averaged.by} averages "
                f"gradients in every backward; in step {step.number} this one has {count}, and "
                f"{replicas:.0f} replicas have {counts:.0f}; give accumulate=, or one "
                "group of all ranks, which shares every micro-batch"
            )
        return weight

    def mean_loss(self) -> float:
        """Return the loss of the step whose loss was taken last, the same on all ranks: one number is added up.

        Every rank calls it, after the loss of the step's last batch.

        Raises:
            InvalidArgumentError: The loss of some batch of the step was not taken.
            CommunicationError: A rank failed.
        """
        step = None if self._weighed is None else self._weighed.step
        if step is None or len(step.totals) < step.num_batches:
            raise InvalidArgumentError(
                "[mean_loss] the losses of all batches of a step must have been taken, "
                + ("none was" if step is None else f"{len(step.totals)} of {step.num_batches} were")
                + "; call it where step_ends is true"
            )
        total = self._sum_over_group(list(step.totals.values()))
        weight = step.weight
        if step.divisor is not None:
            (total,) = self._averaged.over_replicas(total, device=self._model.device)
            weight = step.divisor
        return total / weight if weight > 0 else 0.0

    def _sum_over_group(self, totals: list[torch.Tensor]) -> float:
        own = torch.stack([total.to(device=self._model.device, dtype=torch.float64) for total in totals]).sum()
        return float(self._communicator.all_reduce(own.reshape(1)))

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Any]) -> float:
        """Return the mean loss over all labels of a loader's batches, the same on all ranks; the model is not changed.

        The model runs in evaluation mode, without gradients. Every rank of the group calls it. It may stand inside a
        loop over `shard`.

        Args:
            batches: As of `shard`.

        Raises:
            InvalidArgumentError: There is no label; or as `shard`.
            CommunicationError: A rank failed or got other batches.
        """
        given = runnable(self._given)
        modes = [(module, module.training) for module in given.modules()]
        given.eval()
        trained = self._weighed  # what mean_loss is of
        try:
            steps = []
            for batch in self.shard(batches):
                outputs = given(**batch)
                self.loss(outputs, batch)
                assert self._weighed is not None
                steps.append(self._weighed.step)
        finally:
            self._weighed = trained
            for module, training in modes:
                module.training = training
        weight = sum(step.weight for step in steps)
        if weight == 0:
            raise InvalidArgumentError(
                f"[evaluate] the batches must have labels that count, {len(steps)} batches have none; give documents "
                "of two tokens at least"
            )
        return self._sum_over_group([step.totals[0] for step in steps]) / weight

    def reduce_gradients(self) -> None:
        """End a step: every parameter's gradient becomes its sum over the ranks, the same bits on all.

        Called by every rank once a step, after the backward of its last batch and before anything uses the gradients
        (clipping, the optimizer). Sums are in rank order. Where DistributedDataParallel or FSDP averaged already over
        all ranks that share a batch, nothing is left to sum. A parameter without a gradient on some rank counts as zero
        there, and keeps None where no rank has one.

        Raises:
            InvalidArgumentError: The step is not over, or its gradients are reduced already.
            CommunicationError: A rank failed, or the ranks came here by other calls.
        """
        self._require_attached("reduce_gradients")
        step = self._ledger.end_step()
        if self._communicator.size > 1:
            self._communicator.compare(
                [("the number of the step", step.number), ("the calls that made them", self._communicator.call_hash)],
                operation="reduce_gradients",
                things="gradients",
                remedy="run the same layers and batches in the same order on all ranks of the group",
                device=str(self._model.device),
            )
        if self._averaged.sums_group:
            parameters = [p for p in self._model.parameters() if p.requires_grad]
            sum_gradients(parameters, self._communicator, self._model.device)
