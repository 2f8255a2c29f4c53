"""The exceptions of evenspan. Every text has the form "[operation] rule, the actual values, what to do".

They keep their types through torch: in `loss.backward()`, in compiled code and in `torch.ops.evenspan`.
"""

from __future__ import annotations


class Error(RuntimeError):
    """What an input, a file or the network can cause."""


class InvalidArgumentError(Error, ValueError):
    """The caller's input breaks a rule."""


class UnsupportedError(Error, NotImplementedError):
    """Correct input that this build cannot do; it is never approximated."""


class CommunicationError(Error):
    """A rank died, stalled, or holds another plan; every rank of the group gets it."""


class ResourceError(Error):
    """Memory, files or time ran out."""
