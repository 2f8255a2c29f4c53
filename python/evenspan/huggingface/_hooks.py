"""What an attached model carries: hooks that let only batches of `Context.shard` in, and name its outputs' batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils.hooks import RemovableHandle

from evenspan._errors import InvalidArgumentError
from evenspan.huggingface._attention import NAME, Part, Step
from evenspan.huggingface._interface import put_back
from evenspan.huggingface._steps import Ledger, ShardedBatch
from evenspan.huggingface._unreduced import watch_of

_BATCH = "_evenspan_batch"  # attribute of logits
_TRACES = "_evenspan_traces"  # attribute of models
_SEARCHED_NODES = 64  # of autograd's graph, from a loss's logits back to those of the model

WHAT_TO_DO = (
    "an attached model must be called as model(**batch), a batch of Context.shard; for anything else (generate, "
    "evaluation on one rank) use `with context.detached():`, or context.detach()"
)


class Listener(Protocol):
    """Whom the hooks tell: a context."""

    def begin_forward(self, step: Step) -> None:
        """Check that the batch may run."""

    def batch_of(self, step: Step) -> ShardedBatch:
        """Return the batch that carries this to the attention function."""

    def begin_backward(self, batch: ShardedBatch) -> None:
        """Hear that the batch's backward begins."""


class _Traces:
    """What an attached model carries in itself; a copy of the model has a copy of it, which undoes it there."""

    def __init__(self, model: Any, before: list[tuple[Any, Any]]) -> None:
        self._before = before
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(_before, with_kwargs=True),
            model.register_forward_hook(_after, with_kwargs=True),
        ]
        setattr(model, _TRACES, self)

    def remove(self, model: Any) -> None:
        """Take the hooks away and give the model its former attention."""
        for handle in self._handles:
            handle.remove()
        delattr(model, _TRACES)
        put_back(self._before)


class Attachment:
    """The attention and hooks of an attached model; undone by `remove`."""

    def __init__(self, model: Any, listener: Listener, ledger: Ledger, before: list[tuple[Any, Any]]) -> None:
        """Add the hooks to a model that has evenspan's attention.

        Args:
            model: The model, not kept alive.
            listener: Hears of its calls, not kept alive.
            ledger: Of its steps, kept alive: optimizers heed it.
            before: What `implementations` returned before that attention was set.
        """
        self._traces = _Traces(model, before)
        self._model = weakref.ref(model)
        self.listener = weakref.ref(listener)
        watch_of(model).begin(ledger)
        _attachments[model] = self

    def remove(self) -> None:
        """Take the hooks away and give the model its former attention."""
        model = self._model()
        if model is not None:
            watch_of(model).end()
            self._traces.remove(model)
            del _attachments[model]


_attachments: weakref.WeakKeyDictionary[Any, Attachment] = weakref.WeakKeyDictionary()


def attachment_of(model: Any) -> Attachment | None:
    """Return the model's attachment, None for a model that is not attached."""
    return _attachments.get(model)


def let_go(model: Any) -> None:
    """Undo the model's attachment, or that of the model which it is a copy of, if there is one."""
    attachment = attachment_of(model)
    if attachment is not None:
        attachment.remove()
    elif hasattr(model, _TRACES):
        getattr(model, _TRACES).remove(model)


class _Mark(torch.autograd.Function):
    """Passes logits on: names their batch to `batch_of`, and says when backward begins."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, batch: ShardedBatch, tell: Callable[[ShardedBatch], None]) -> Any:
        ctx.batch = batch
        ctx.tell = tell
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.tell(ctx.batch)
        return gradients[0], None, None


class _Scale(torch.autograd.Function):
    """Passes a loss on, and tells in backward what it was multiplied by."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, tell: Callable[[float], None]) -> torch.Tensor:
        ctx.tell = tell
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.tell(float(gradients[0]))
        return gradients[0], None


def hear_scale(loss: torch.Tensor, tell: Callable[[float], None]) -> torch.Tensor:
    """Return the loss; in its backward `tell` hears what it was multiplied by, which waits for the device."""
    heard: torch.Tensor = _Scale.apply(loss, tell)  # type: ignore[no-untyped-call]
    return heard


def _listener(model: Any) -> Listener:
    attachment = attachment_of(model)
    listener = None if attachment is None else attachment.listener()
    if listener is None:
        what = "a copy of an attached model" if attachment is None else "one whose Context is gone"
        raise InvalidArgumentError(f"[attention] the model must be attached, this is {what}; attach it")
    return listener


def _is_rehearsal(kwargs: dict[str, Any]) -> bool:
    """Whether the model runs to be proved, after it was attached without weights."""
    return isinstance(kwargs.get(NAME), Part) and not isinstance(kwargs.get(NAME), Step)


def _refuse_other_batch(kwargs: dict[str, Any]) -> None:
    """Refuse a call with less or more than the batch has, where the model would take something else for it."""
    if kwargs.get("position_ids") is None:
        raise InvalidArgumentError(
            "[attention] a batch must be given whole, its position_ids are missing and the model would number this "
            "rank's rows as one document; call model(**batch)"
        )
    for name, why in {
        "attention_mask": "the batch has no padding, and the plan says who sees whom; leave it out",
        "labels": "the model's own loss knows this rank's rows alone; leave them out and use Context.loss",
    }.items():
        if kwargs.get(name) is not None:
            raise InvalidArgumentError(
                f"[attention] a batch must be given as it is, it has {name} besides; {why}, call model(**batch)"
            )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _before(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    found = model.config.get_text_config()._attn_implementation
    if found != NAME and NAME not in kwargs:
        return  # a caller who set the attention back, and calls the model with something else than a batch
    if _is_rehearsal(kwargs):
        return
    listener = _listener(model)
    if found != NAME:
        raise InvalidArgumentError(
            f"[attention] a batch of Context.shard needs evenspan's attention, the model's was set to {found!r}; "
            "attach the model again"
        )
    if not isinstance(kwargs.get(NAME), Step):
        raise InvalidArgumentError(f"[attention] {WHAT_TO_DO}")
    _refuse_other_batch(kwargs)
    listener.begin_forward(kwargs[NAME])


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _after(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> Any:
    if NAME not in kwargs or _is_rehearsal(kwargs):
        return outputs
    listener = _listener(model)
    batch = listener.batch_of(kwargs[NAME])
    logits = logits_of(outputs)
    if logits.requires_grad:
        logits = _Mark.apply(logits, batch, listener.begin_backward)  # type: ignore[no-untyped-call]
    setattr(logits, _BATCH, batch)
    if isinstance(outputs, torch.Tensor):
        return logits
    if isinstance(outputs, tuple):
        return (logits, *outputs[1:])
    outputs.logits = logits
    return outputs


def logits_of(outputs: Any) -> torch.Tensor:
    """Return the logits among a model's outputs."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    logits = outputs[0] if isinstance(outputs, tuple) else getattr(outputs, "logits", None)
    if not isinstance(logits, torch.Tensor):
        raise InvalidArgumentError(
            f"[loss] outputs must be logits or have them, they are a {type(outputs).__name__}; give what the model "
            "returned"
        )
    return logits


def batch_of(logits: torch.Tensor) -> ShardedBatch | None:
    """Return the batch for which an attached model made these logits, or those that they were computed from."""
    batch = getattr(logits, _BATCH, None)
    if isinstance(batch, ShardedBatch):
        return batch
    nodes: list[Any] = [logits.grad_fn]
    for node in nodes:  # grows
        if node is None:
            continue
        batch = getattr(node, "batch", None)
        if isinstance(batch, ShardedBatch):
            return batch
        if len(nodes) < _SEARCHED_NODES:
            nodes += [following for following, _ in node.next_functions]
    return None
