"""The Context: a model that is attached to a group of ranks, its batches, loss and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F

from evenspan import _evenspan, _sharding
from evenspan._errors import InvalidArgumentError
from evenspan._groups import CALLER, communicator_of, tell_all
from evenspan.huggingface._attention import NAME
from evenspan.huggingface._batches import NO_LABEL, Batch, read_batch
from evenspan.huggingface._plans import Plans

BUCKET_ELEMENTS = 1 << 20  # of gradients summed at once: memory of much more is had anew each time, which is slower


class Context:
    """A model attached to a group of ranks. Made by `attach`.

    As a context manager it makes the ranks fail together: an exception that leaves the block on one rank (from the
    loader, the model, the loop's body) is a CommunicationError that names this rank and the exception on all others, as
    soon as they wait for it in evenspan; the group is then lost to evenspan. Without the block that holds only for
    exceptions that end the process. The model stays attached after the block.
    """

    def __init__(
        self,
        model: Any,
        config: Any,
        group: dist.ProcessGroup | None,
        average: str | None,
        plans: Plans,
    ) -> None:
        """Use `attach`."""
        self._model = model
        self._config = config
        self._communicator = communicator_of(group)
        self._average = average
        self._plans = plans
        self._plan: _evenspan.Plan | None = None
        self._shift_labels = torch.empty(0, dtype=torch.int64)
        self._num_labels = 0

    def __enter__(self) -> Self:
        """Begin a block whose exceptions reach all ranks."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the other ranks of the exception, if there is one; it goes on."""
        if error is not None:
            tell_all(self._communicator, CALLER, error)

    @property
    def plan(self) -> _evenspan.Plan | None:
        """The plan of the batch that `shard` yielded last."""
        return self._plan

    @property
    def num_labels(self) -> int:
        """Labels of that batch on all ranks."""
        return self._num_labels

    def shard(self, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield this rank's part of every batch, for `model(**batch)`.

        While a batch runs, the next one, taken from the loader before, is planned on a thread. What the loader or the
        planning raises is raised in its batch's turn. A loop that ends early has taken one batch more than it used.

        Args:
            batches: A loader that gives every rank of the group the same batches. A batch is a list of documents (each
                a list or tensor of token ids), or a dictionary with `input_ids` [1, T], optionally `labels` [1, T] (not
                shifted, -100 for none; `input_ids` by default), and the documents' bounds: `documents` (lengths),
                `cu_seq_lens_q` or `cu_seq_lens`, or `position_ids` that begin at 0 in every document; without any of
                these, the row is one document. Empty documents are dropped.

        Yields:
            `input_ids`, `position_ids` and `shift_labels`, int64 [1, n] on the model's device (n is 1 with no label
            where the plan gives this rank nothing), and what the attention function needs.

        Raises:
            InvalidArgumentError: A batch is empty or not packed as said, or the model's attention was set back.
            UnsupportedError: A batch has an attention mask.
            CommunicationError: The ranks got different batches.
        """
        loader = iter(batches)
        upcoming = self._take(loader)
        while (batch := upcoming()) is not None:
            self._check_attention("shard")
            plan = self._plans.plan(batch.lengths)
            sharded = self._shard_one(batch, plan)
            upcoming = self._take(loader)
            yield sharded

    def _take(self, loader: Iterator[Any]) -> Callable[[], Batch | None]:
        """Take the loader's next batch and begin to plan it; the result gives it (None at the end) or raises."""
        try:
            batch = read_batch(next(loader))
            self._plans.prefetch(batch.lengths)
        except StopIteration:
            return lambda: None
        except Exception as error:
            raised = error

            def fail() -> Batch | None:
                raise raised

            return fail
        return lambda: batch

    @property
    def planning(self) -> dict[str, int]:
        """Counts of `shard` so far.

        `made` plans, `made_ahead` of these while another batch ran or was awaited, `hits`: batches of lengths that were
        planned already; `ready` and `waits`: batches whose plan was there or was waited for when its turn came.
        """
        return self._plans.counts

    def _check_attention(self, operation: str) -> None:
        found = self._config._attn_implementation
        if found != NAME:
            raise InvalidArgumentError(
                f"[{operation}] an attached model must keep evenspan's attention, its implementation was set to "
                f"{found!r}; attach it again"
            )

    def _shard_one(self, batch: Batch, plan: _evenspan.Plan) -> dict[str, Any]:
        device = self._model.device
        step = self._plans.step(plan, device)
        rows = _sharding.rows_of(plan, self._communicator.rank)

        def take(tensor: torch.Tensor, dummy: int) -> torch.Tensor:
            local = tensor[rows] if rows.numel() > 0 else torch.tensor([dummy])
            return local.unsqueeze(0).to(device)

        self._plan = plan
        self._num_labels = int((batch.shift_labels != NO_LABEL).sum())
        self._shift_labels = take(batch.shift_labels, NO_LABEL)
        return {
            "input_ids": take(batch.ids, 0),
            "position_ids": take(batch.positions, 0),
            "shift_labels": self._shift_labels,
            "use_cache": False,
            NAME: step,
        }

    def loss(self, outputs: Any) -> torch.Tensor:
        """Return this rank's share of the one loss of the batch that `shard` yielded last.

        The shares of all ranks add up to the mean cross entropy (natural logarithm; log-softmax in float32, float64
        for float64 logits) over the labels of all ranks; 0 for a batch without labels. With `average`, the share is
        multiplied by the number of ranks.

        Args:
            outputs: What the model returned: has `logits` [1, n, vocabulary], or is the logits.

        Raises:
            InvalidArgumentError: The logits do not belong to that batch, or the model's attention was set back.
        """
        self._check_attention("loss")
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
        labels = self._shift_labels.to(logits.device)
        if logits.shape[:-1] != labels.shape:
            raise InvalidArgumentError(
                f"[loss] logits must be {[*labels.shape, 'vocabulary']} as the batch that shard yielded last, they are "
                f"{list(logits.shape)}"
            )
        if logits.dtype != torch.float64:
            logits = logits.float()
        total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=NO_LABEL, reduction="sum")
        scale = 1 if self._average is None else self._communicator.size
        return total * (scale / max(self._num_labels, 1))

    @torch.no_grad()
    def reduce_gradients(self) -> None:
        """Replace every parameter's gradient by its sum over the ranks, added in rank order: the same bits on all.

        A parameter without a gradient on some rank counts as zero there, and keeps None where no rank has one.

        Raises:
            InvalidArgumentError: `average` is set, so that the wrapper reduces the gradients.
            CommunicationError: A rank failed.
        """
        if self._average is not None:
            raise InvalidArgumentError(
                f"[reduce_gradients] average={self._average!r} leaves the gradients to the wrapper; attach without it"
            )
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        have = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int64, device=self._model.device)
        anywhere = self._communicator.all_reduce(have).tolist()
        buckets: dict[tuple[torch.dtype, torch.device], list[torch.nn.Parameter]] = {}
        for parameter, count in zip(parameters, anywhere, strict=True):
            if count == 0:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket = buckets.setdefault((parameter.grad.dtype, parameter.device), [])
            bucket.append(parameter)
            if sum(p.numel() for p in bucket) >= BUCKET_ELEMENTS:
                self._reduce(bucket)
                bucket.clear()
        for bucket in buckets.values():
            if bucket:
                self._reduce(bucket)

    def _reduce(self, bucket: list[torch.nn.Parameter]) -> None:
        gradients = [p.grad for p in bucket if p.grad is not None]
        total = self._communicator.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(total, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
