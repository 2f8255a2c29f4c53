"""Optimizers that would use gradients before they are reduced: refused, also once the model is detached."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from evenspan.huggingface._gradients import local_of
from evenspan.huggingface._steps import Ledger


class _Left:
    """The gradients of a step in whose middle the model was detached."""

    def __init__(self, model: Any, ledger: Ledger) -> None:
        self.ledger = ledger
        self._gradients = [weakref.ref(p.grad) for p in model.parameters() if p.grad is not None]

    def is_dropped(self) -> bool:
        """Whether the parameters hold none of them any more: replaced, or set to 0."""
        held = [local_of(gradient) for reference in self._gradients if (gradient := reference()) is not None]
        return not held or not bool(torch.stack([gradient.any().to("cpu") for gradient in held]).any())


class OptimizerWatch:
    """Hears of every optimizer that is about to step, and refuses those of a model whose gradients are not reduced.

    It is there while the model is attached. Where a step is open when the model is detached, it stays until the model
    is attached again, since the gradients would else be taken for those of the step.
    """

    def __init__(self, model: Any) -> None:
        """Begin to watch nothing.

        Args:
            model: The model, not kept alive.
        """
        self._model = weakref.ref(model)
        self._ledger: Ledger | None = None  # while attached
        self._left: _Left | None = None
        self._unregister: weakref.finalize[[], Any] | None = None  # called at the model's end, too

    def begin(self, ledger: Ledger) -> None:
        """Hear that the model is attached, with this ledger of its steps."""
        if self._left is not None and self._left.ledger is ledger:
            self._left = None
        self._ledger = ledger
        if self._unregister is None:
            handle = register_optimizer_step_pre_hook(self._before_step)
            self._unregister = weakref.finalize(self._model(), handle.remove)

    def end(self) -> None:
        """Hear that the model is detached."""
        model, ledger = self._model(), self._ledger
        self._ledger = None
        if model is not None and ledger is not None and ledger.is_open:
            self._left = _Left(model, ledger)
        if self._left is None and self._unregister is not None:
            self._unregister()
            self._unregister = None

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        model = self._model()
        if model is None:
            return
        own = {id(parameter) for parameter in model.parameters()}
        if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            return
        if self._ledger is not None:
            self._ledger.refuse_unreduced()
            if self._ledger.has_begun:  # without gradients
                self._left = None
        if self._left is not None:
            if self._left.is_dropped():
                self._left = None
            else:
                self._left.ledger.refuse_unreduced(detached=True)


_watches: weakref.WeakKeyDictionary[Any, OptimizerWatch] = weakref.WeakKeyDictionary()


def watch_of(model: Any) -> OptimizerWatch:
    """Return the one watch of a model."""
    return _watches.setdefault(model, OptimizerWatch(model))
