"""Sums of gradients over ranks."""

from __future__ import annotations

import torch

from evenspan import _evenspan

BUCKET_ELEMENTS = 1 << 20  # of gradients summed at once: memory of much more is had anew each time, which is slower


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that this rank holds: the tensor itself, but for one that a wrapper shards."""
    if type(tensor) is torch.Tensor or not hasattr(tensor, "to_local"):  # a DTensor, whose import takes a second
        return tensor
    local: torch.Tensor = tensor.to_local()
    return local


@torch.no_grad()
def sum_gradients(
    parameters: list[torch.nn.Parameter], communicator: _evenspan.Communicator, device: torch.device
) -> None:
    """Replace every gradient by its sum over the ranks, added in rank order: the same bits on all.

    A parameter without a gradient on some rank counts as zero there, and keeps None where no rank has one.
    """
    have = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int64, device=device)
    anywhere = communicator.all_reduce(have).tolist()
    buckets: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    elements: dict[tuple[torch.dtype, torch.device], int] = {}
    for parameter, count in zip(parameters, anywhere, strict=True):
        if count == 0:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = local_of(parameter.grad)
        key = (gradient.dtype, gradient.device)
        buckets.setdefault(key, []).append(gradient)
        elements[key] = elements.get(key, 0) + gradient.numel()
        if elements[key] >= BUCKET_ELEMENTS:
            _sum_bucket(buckets.pop(key), communicator)
            elements[key] = 0
    for bucket in buckets.values():
        _sum_bucket(bucket, communicator)


def _sum_bucket(gradients: list[torch.Tensor], communicator: _evenspan.Communicator) -> None:
    total = communicator.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, torch.split(total, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
