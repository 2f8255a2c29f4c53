"""Data-parallel wrappers around a model: which one averages its gradients, and over which ranks."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DataParallel, DistributedDataParallel

from evenspan import _evenspan
from evenspan._errors import InvalidArgumentError, UnsupportedError


def _fsdp() -> Any:
    """Return torch's FSDP, whose import takes a second that `import evenspan` need not."""
    import torch.distributed.fsdp as fsdp

    return fsdp


def unwrapped(given: Any) -> Any:
    """Return the model inside wrappers and compiled modules.

    Raises:
        UnsupportedError: DataParallel or FSDP1 is among the wrappers.
    """
    while True:
        if isinstance(given, DataParallel):
            raise UnsupportedError(
                "[attach] a model must run in one thread of a process, it is in a DataParallel; start a process a "
                "device (torchrun) and use DistributedDataParallel or fully_shard"
            )
        if isinstance(given, _fsdp().FullyShardedDataParallel):
            raise UnsupportedError(
                "[attach] gradients must be averaged by DistributedDataParallel or fully_shard (FSDP2), the model is "
                "in a FullyShardedDataParallel (FSDP1); use fully_shard"
            )
        if isinstance(given, DistributedDataParallel):
            given = given.module
        elif isinstance(given, torch._dynamo.OptimizedModule):
            given = given._orig_mod
        else:
            return given


def runnable(given: Any) -> Any:
    """Return what computes as the given model does, without what DistributedDataParallel exchanges and compilers do."""
    while isinstance(given, (DistributedDataParallel, torch._dynamo.OptimizedModule)):
        given = given.module if isinstance(given, DistributedDataParallel) else given._orig_mod
    return given


class Over(enum.Enum):
    """How a wrapper's ranks lie to those that share a batch."""

    NOBODY = 0  # there is no wrapper
    SAME_RANKS = 1
    WHOLE_GROUPS = 2  # several replicas, all ranks of each
    ONE_OF_EACH = 3  # one rank of each replica: the gradients must still be summed over the ranks of a batch
    OTHERS = 4  # anything else, which is refused


@dataclasses.dataclass(frozen=True)
class Averaging:
    """Who averages a model's gradients in backward.

    A rank's share of the loss is multiplied by `size`; with replicas (more ranks than share a batch), its divisor is
    the weight of all their labels.
    """

    by: str  # "DistributedDataParallel", ...; "" for nobody
    over: Over = Over.NOBODY
    size: int = 1  # ranks that it averages over
    replicas: tuple[dist.ProcessGroup, ...] = ()  # over which numbers of the groups are added, one after another
    leads: bool = True  # whether this rank gives its group's number there
    keeps: bool = True  # whether unreduced gradients are in `Parameter.grad`

    @property
    def sums_group(self) -> bool:
        """Whether the gradients must still be summed over the ranks that share a batch."""
        return self.over in (Over.NOBODY, Over.ONE_OF_EACH)

    def over_replicas(self, *values: float, device: torch.device) -> list[float]:
        """Return the sums of numbers that all ranks of a group know, over the groups of all replicas."""
        if not self.replicas:
            return list(values)
        totals = torch.tensor(values, dtype=torch.float64, device=device) * float(self.leads)
        for group in self.replicas:
            dist.all_reduce(totals, group=group)
        return totals.tolist()


def _ranks_of(group: dist.ProcessGroup | None) -> list[int]:
    if not (dist.is_available() and dist.is_initialized()):
        return [0]
    return list(dist.get_process_group_ranks(group if group is not None else dist.group.WORLD))


def _over(
    by: str, groups: tuple[dist.ProcessGroup, ...], ranks: list[int], own: dist.ProcessGroup | None, keeps: bool
) -> Averaging:
    """Relate a wrapper over these ranks to the group that shares a batch."""
    mine = _ranks_of(own)
    common = set(ranks) & set(mine)
    leads = mine[0] == dist.get_rank()
    if set(ranks) == set(mine):
        return Averaging(by, Over.SAME_RANKS, len(ranks), keeps=keeps)
    if common == set(mine):
        return Averaging(by, Over.WHOLE_GROUPS, len(ranks), groups, leads, keeps=keeps)
    return Averaging(by, Over.ONE_OF_EACH if len(common) == 1 else Over.OTHERS, len(ranks), groups, keeps=keeps)


def agree(
    found: Averaging, own: dist.ProcessGroup | None, communicator: _evenspan.Communicator, device: torch.device
) -> None:
    """Check that all ranks found wrappers that fit together; every rank that shares a batch calls.

    Raises:
        UnsupportedError: A wrapper is neither over the ranks that share a batch, nor over several such groups whole,
            nor over one rank of each.
    """
    mine = _ranks_of(own)
    kinds = communicator.all_gather(torch.tensor([found.over.value], device=device))
    fits = found.over != Over.OTHERS and all(int(kind) == found.over.value for kind in kinds)
    if fits and found.replicas:
        fits = _replicas_agree(found, mine, device)
        fits = all(map(bool, communicator.all_gather(torch.tensor([int(fits)], device=device))))
    if not fits:
        raise UnsupportedError(
            f"[attention] {found.by or 'no wrapper'} must average over the ranks that share a batch, over several such "
            f"groups whole, or over one rank of each, on all ranks; it averages over {found.size} ranks and "
            f"{len(mine)} share a batch; wrap the model over other ranks"
        )


def _replicas_agree(found: Averaging, mine: list[int], device: torch.device) -> bool:
    # By a group's first rank: how many of its ranks the wrapper has, and the sums of their sizes and kinds.
    seen = torch.zeros(3, dist.get_world_size(), dtype=torch.float64, device=device)
    seen[:, mine[0]] = torch.tensor([1, len(mine), found.over.value], dtype=torch.float64)
    for group in found.replicas:
        dist.all_reduce(seen, group=group)
    ranks, sizes, kinds = seen[:, seen[0] > 0]
    expected = sizes / ranks if found.over == Over.WHOLE_GROUPS else torch.ones_like(ranks)
    return torch.equal(ranks, expected) and torch.equal(kinds, ranks * found.over.value)


def _refuse_unsynchronised(by: str, ends_step: bool, synchronises: bool) -> None:
    if ends_step and not synchronises:
        raise InvalidArgumentError(
            f"[attention] the last batch of a step must run with {by}'s gradient synchronisation, it runs without "
            "(no_sync, set_requires_gradient_sync(False)); switch it off where step_ends will be false only"
        )


def _of_ddp(wrapper: DistributedDataParallel, own: dist.ProcessGroup | None, ends_step: bool) -> Averaging:
    _refuse_unsynchronised("DistributedDataParallel", ends_step, wrapper.require_backward_grad_sync)
    ignored = set(wrapper.parameters_to_ignore)
    left_out = [name for name, p in wrapper.module.named_parameters() if p.requires_grad and name in ignored]
    if left_out:
        raise UnsupportedError(
            f"[attention] DistributedDataParallel must average all gradients, it ignores {left_out[0]} and "
            f"{len(left_out) - 1} more; do not set its parameters to ignore"
        )
    group: Any = wrapper.process_group
    return _over("DistributedDataParallel", (group,), _ranks_of(group), own, keeps=True)


def _of_fsdp2(model: Any, own: dist.ProcessGroup | None, ends_step: bool) -> Averaging:
    by = "fully_shard"
    parts: list[Any] = []
    for module in model.modules():
        if isinstance(module, _fsdp().FSDPModule):
            state = module._get_fsdp_state()
            parts += getattr(state, "_fsdp_param_groups", None) or [
                part for part in [getattr(state, "_fsdp_param_group", None)] if part is not None
            ]
    _refuse_unsynchronised(by, ends_step, all(part.reduce_grads and part.all_reduce_grads for part in parts))
    meshes = {tuple(part.mesh_info.mesh.mesh.flatten().tolist()): part.mesh_info.mesh for part in parts}
    held = sum(len(part.fsdp_params) for part in parts)
    wanted = len(list(model.parameters()))
    divided = any(part.gradient_divide_factor is not None for part in parts)
    if len(meshes) != 1 or held != wanted or divided:
        raise UnsupportedError(
            f"[attention] {by} must hold all parameters on one mesh and average over it, it holds {held} of {wanted} "
            f"on {len(meshes)} meshes"
            + (", with a divide factor of its own" if divided else "")
            + "; call fully_shard on the model itself too, without ignored_params and set_gradient_divide_factor"
        )
    ((ranks, mesh),) = meshes.items()
    return _over(by, tuple(mesh.get_all_groups()), list(ranks), own, keeps=False)


def averaging_of(model: Any, own: dist.ProcessGroup | None, *, ends_step: bool, by_others: bool) -> Averaging:
    """Return who averages the gradients of the forward that runs now, inside the model.

    Args:
        model: The transformers model.
        own: The group that shares a batch.
        ends_step: Whether the batch that runs is its step's last.
        by_others: Whether the caller says that a wrapper that is not known here averages over the group's ranks.

    Raises:
        UnsupportedError: A wrapper does not hold the whole model.
        InvalidArgumentError: It does not synchronise gradients although the step ends.
    """
    found = []
    outer = DistributedDataParallel._active_ddp_module
    if outer is not None and unwrapped(outer) is model:
        found.append(_of_ddp(outer, own, ends_step))
    flat = any(getattr(p, "_fsdp_flattened", False) for p in model.parameters())
    inside = [m for m in model.modules() if isinstance(m, (DistributedDataParallel, _fsdp().FullyShardedDataParallel))]
    sharded = any(isinstance(m, _fsdp().FSDPModule) for m in model.modules())
    replicated = hasattr(model, "set_requires_gradient_sync") and not sharded  # by torch's composable replicate
    if flat or inside or replicated:
        what = "FullyShardedDataParallel" if flat else type(inside[0]).__name__ if inside else "replicate()"
        raise UnsupportedError(
            f"[attention] gradients must be averaged by DistributedDataParallel or fully_shard around the whole model, "
            f"the model has a {what} {'around' if flat and not inside else 'inside'} it; use one of these"
        )
    if sharded:
        found.append(_of_fsdp2(model, own, ends_step))
    if by_others:
        found.append(Averaging("average=True", Over.SAME_RANKS, len(_ranks_of(own)), keeps=False))
    if len(found) > 1:
        raise InvalidArgumentError(
            f"[attention] one wrapper must average the gradients, {' and '.join(a.by for a in found)} do; take one away"
        )
    return found[0] if found else Averaging("")
