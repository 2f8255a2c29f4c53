"""Communicators of process groups: one for each group, as long as the group lives."""

from __future__ import annotations

import weakref

import torch.distributed as dist

from evenspan import _evenspan

TIMEOUT_SECONDS = 300.0

_communicators: weakref.WeakKeyDictionary[dist.ProcessGroup, _evenspan.Communicator] = weakref.WeakKeyDictionary()
_alone: list[_evenspan.Communicator] = []


def communicator_of(group: dist.ProcessGroup | None, timeout: float | None = None) -> _evenspan.Communicator:
    """Return the communicator of a group, made at its first use.

    Args:
        group: The process group; None is the default group, or this process alone.
        timeout: Seconds that a wait for another rank may take, 300 by default; counts at the first use of the group.

    Raises:
        InvalidArgumentError: The group is not known to c10d.
    """
    seconds = TIMEOUT_SECONDS if timeout is None else timeout
    if group is None and dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
    if group is None:
        if not _alone:
            _alone.append(_evenspan.Communicator(None, seconds))
        return _alone[0]
    found = _communicators.get(group)
    if found is None:
        found = _evenspan.Communicator(group.group_name, seconds)
        _communicators[group] = found
    return found
