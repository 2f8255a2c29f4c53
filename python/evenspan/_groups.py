"""Communicators of process groups: one for each group, as long as the group lives; and how its ranks fail together."""

from __future__ import annotations

import math
import sys
import weakref
from types import TracebackType

import torch.distributed as dist

from evenspan import _evenspan
from evenspan._arguments import described
from evenspan._errors import InvalidArgumentError

TIMEOUT_SECONDS = 300.0
CALLER = "the caller's code"  # as an operation that fails

_communicators: weakref.WeakKeyDictionary[dist.ProcessGroup, _evenspan.Communicator] = weakref.WeakKeyDictionary()
_timeouts: weakref.WeakKeyDictionary[dist.ProcessGroup, float] = weakref.WeakKeyDictionary()
_alone: list[_evenspan.Communicator] = []
_hooked: list[bool] = []


def communicator_of(group: dist.ProcessGroup | None, timeout: float | None = None) -> _evenspan.Communicator:
    """Return the communicator of a group, made at its first use.

    Args:
        group: The process group; None is the default group, or this process alone.
        timeout: Seconds that a wait for another rank may take; None is what the group has, 300 at its first use.

    Raises:
        InvalidArgumentError: The group is not known to c10d, the timeout is not positive, or the group has another.
    """
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf
    ):
        raise InvalidArgumentError(
            f"[group] a timeout must be a positive number of seconds, it is {described(timeout)}; give one"
        )
    seconds = TIMEOUT_SECONDS if timeout is None else float(timeout)
    if group is None and dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise InvalidArgumentError(
            f"[group] group must be a process group of torch.distributed that this process is in, or None, it is "
            f"{described(group)}; give that of dist.new_group on a rank of it, or leave it out"
        )
    if group is None:
        if not _alone:
            _alone.append(_evenspan.Communicator(None, seconds))
        return _alone[0]
    found = _communicators.get(group)
    if found is not None and timeout not in (None, _timeouts[group]):
        raise InvalidArgumentError(
            f"[group] a group keeps the timeout of its first use, it has {_timeouts[group]:g} seconds and {timeout:g} "
            "are asked for; give the timeout where the group is used first, or another group (dist.new_group)"
        )
    if found is None:
        _tell_of_uncaught_exceptions()
        found = _evenspan.Communicator(group.group_name, seconds)
        _communicators[group] = found
        _timeouts[group] = seconds
    return found


def tell_all(communicator: _evenspan.Communicator, operation: str, error: BaseException) -> None:
    """Tell the other ranks that this one does not go on: who waits for it in evenspan raises CommunicationError.

    Ranks that all stop before the same call can go on with the group. An orderly end (`sys.exit(0)`, a closed
    generator) is no failure.
    """
    if communicator.size > 1 and not _is_orderly(error):
        communicator.refuse(operation, f"{type(error).__name__}: {error}")


def _is_orderly(error: BaseException) -> bool:
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)


def _tell_of_uncaught_exceptions() -> None:
    """Tell the ranks of every group when an exception ends this process, before it is printed."""
    if _hooked:
        return
    _hooked.append(True)
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        for communicator in list(_communicators.values()):
            if communicator.size > 1 and not _is_orderly(error):
                communicator.abort(CALLER, f"{type(error).__name__}: {error}")
        previous(kind, error, trace)

    sys.excepthook = hook
