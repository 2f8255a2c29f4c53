"""Plans, shards and attention on tensors."""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from evenspan import _evenspan
from evenspan._arguments import (
    described,
    one_mask_or_more,
    optional_path,
    real_number,
    text,
    whole_number,
    whole_numbers,
)
from evenspan._errors import InvalidArgumentError
from evenspan._groups import communicator_of

ModelSizes = tuple[int, int, int, int]
MODEL_SIZES = ("layers", "hidden size", "intermediate size", "vocabulary")

DTYPES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32", torch.float64: "f64"}

_Key = tuple[_evenspan.Communicator, str]
_executables: weakref.WeakKeyDictionary[_evenspan.Plan, dict[_Key, _evenspan.Executable]] = weakref.WeakKeyDictionary()
_rows: weakref.WeakKeyDictionary[_evenspan.Plan, dict[int, torch.Tensor]] = weakref.WeakKeyDictionary()


def planner(
    ranks: int,
    *,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int,
    ranks_per_node: int = 0,
    topology: str | os.PathLike[str] | None = None,
    strategy: str = _evenspan.DEFAULT_STRATEGY,
    dtype: torch.dtype | str = torch.bfloat16,
    token_slack: float = 0.1,
    ranks_per_group: int = 0,
    memory_budget: int = 0,
    profile: str | os.PathLike[str] | None = None,
    model: ModelSizes | str | os.PathLike[str] | None = None,
    layers: Sequence[tuple[int, int | None]] = (),
    capacity: int = 1,
) -> _evenspan.Planner:
    """Return what plans batches for these ranks and this shape; arguments as of `plan`.

    Args:
        ranks: Ranks that share a batch.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Elements of a head.
        ranks_per_node: Consecutive ranks on one machine.
        topology: A file, instead of `ranks_per_node`.
        strategy: A name, or "auto".
        dtype: Element type.
        token_slack: Of planned placements.
        ranks_per_group: Ranks that split heads.
        memory_budget: Bytes of a rank.
        profile: The machine's profile.
        model: The model that is weighed.
        layers: Its kinds of softmax layers, how many each and their window (None: none); a batch has a plan for each,
            all on one placement. None given: one plan.
        capacity: Batches whose plans are kept, the ones used last.
    """
    heads = whole_number("plan", "heads", heads)
    return _evenspan.Planner(
        ranks=whole_number("plan", "ranks", ranks),
        ranks_per_node=whole_number("plan", "ranks_per_node", ranks_per_node),
        topology=optional_path("plan", "topology", topology),
        strategy=text("plan", "strategy", strategy),
        heads=heads,
        kv_heads=heads if kv_heads is None else whole_number("plan", "kv_heads", kv_heads),
        head_dim=whole_number("plan", "head_dim", head_dim),
        dtype=_element_type(dtype),
        token_slack=real_number("plan", "token_slack", token_slack),
        ranks_per_group=whole_number("plan", "ranks_per_group", ranks_per_group),
        memory_budget=whole_number("plan", "memory_budget", memory_budget, bits=64),
        profile=optional_path("plan", "profile", profile),
        model=_sizes_or_path(model),
        layers=list(layers),
        capacity=capacity,
    )


# Beside those of torch itself: float32, float, double, ...
_NAMES = {name: dtype for dtype, name in DTYPES.items()}


def torch_type(dtype: Any, *, operation: str) -> torch.dtype:
    """Return a torch type, given as such or by one of the names that `plan` takes."""
    found = _NAMES.get(dtype, getattr(torch, dtype, None)) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise InvalidArgumentError(
            f"[{operation}] dtype must be a torch.dtype, or its name, it is {described(dtype)}; give torch.bfloat16"
        )
    return found


def _element_type(dtype: Any) -> str:
    """Return the name of an element type, given as such or as a torch type."""
    if isinstance(dtype, str):
        return dtype
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES:
        raise InvalidArgumentError(
            f"[plan] dtype must be one of {', '.join(map(str, DTYPES))}, or its name, it is {described(dtype)}; give "
            "one"
        )
    return DTYPES[dtype]


def _sizes_or_path(model: Any) -> ModelSizes | str | None:
    """Return a model's four sizes, or the path of its file, None for None."""
    if model is None or isinstance(model, str | os.PathLike):
        return optional_path("plan", "model", model)
    if not isinstance(model, Sequence) or isinstance(model, bytes | bytearray) or len(model) != len(MODEL_SIZES):
        raise InvalidArgumentError(
            f"[plan] model must be {len(MODEL_SIZES)} whole numbers ({', '.join(MODEL_SIZES)}) or the path of a "
            f"config.json, it is {described(model)}; give one of them"
        )
    layers, hidden, intermediate, vocabulary = (
        whole_number("plan", f"{name} of model", size, bits=32 if name == "layers" else 64)
        for name, size in zip(MODEL_SIZES, model, strict=True)
    )
    return layers, hidden, intermediate, vocabulary


def plan(
    lengths: Sequence[int],
    ranks: int,
    *,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int,
    ranks_per_node: int = 0,
    topology: str | os.PathLike[str] | None = None,
    strategy: str = _evenspan.DEFAULT_STRATEGY,
    dtype: torch.dtype | str = torch.bfloat16,
    mask: str | Sequence[str] = "causal",
    token_slack: float = 0.1,
    ranks_per_group: int = 0,
    memory_budget: int = 0,
    profile: str | os.PathLike[str] | None = None,
    model: ModelSizes | str | os.PathLike[str] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> _evenspan.Plan:
    """Plan one batch of packed documents: deterministic, so that every rank makes the same plan from the same input.

    Args:
        lengths: Tokens of each document, at least 1 each: whole numbers of Python, NumPy or torch, no other kind.
        ranks: Ranks that share the batch.
        heads: Query heads.
        kv_heads: Key and value heads, a divisor of `heads`; as many as `heads` by default.
        head_dim: Elements of a head.
        ranks_per_node: Consecutive ranks on one machine, the last may have fewer; 0 puts all on one.
        topology: A JSON file (docs/simulator.md) with levels and links of its own, instead of `ranks_per_node`; goes
            with a profile or "auto".
        strategy: A name that `evenspan strategies` lists, "mixed" by default, or "auto": the one whose step is
            simulated shortest on the machine of `profile` (h100-sxm if none is named, and a warning says so), for the
            sizes of `model`; `Plan.strategy` names it. Beyond 64 ranks some are modelled by a formula and not planned;
            a warning says when the shortest step is theirs.
        dtype: Element type of queries, keys and values: a torch type, its name (float32), or bf16, f16, f32, f64.
        mask: "causal", "full", "window:W" (a query sees W keys, itself the last) or "prefix:N"; one for all documents
            or one for each. `Plan.with_mask` plans layers with another mask on the same placement.
        token_slack: A planned placement keeps tokens max / mean at most 1 + token_slack where possible.
        ranks_per_group: For `mixed`, `hierarchical` and `usp`: ranks that split heads, a divisor of `ranks`; 0 chooses.
        memory_budget: Most bytes of buffers and saved operands on a rank; 0 for no limit.
        profile: What the machine costs, for "auto" and for the work of a pair and a token: the name of a shipped
            profile (h100-sxm, h100-sxm-fa3, a100-40gb-ib, flexsp-7b) or a JSON file (docs/simulator.md). Its links
            join the ranks.
        model: The model that is weighed: layers, hidden size, intermediate size and vocabulary, or the path of its
            config.json, whose windows and linear layers are weighed too. By a profile's times, of Llama 3 8B by
            default; without one by operations, or by FlexSP's times of a 7B model if none is given.
        groups: Where your own planner puts the documents, instead of a strategy: the ranks of each document, which hold
            equal parts of it in the order given and split its heads, as Ulysses does, and its rows where they are more
            than the heads. `Plan.strategy` is "ulysses".

    Raises:
        InvalidArgumentError: An argument breaks a rule; an unknown strategy gets the nearest name; the profile was
            not measured for the shape; `model` has other heads; `topology` has no profile, or other ranks.
        ResourceError: No plan keeps the memory budget.
    """
    made_by = planner(
        ranks,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ranks_per_node=ranks_per_node,
        topology=topology,
        strategy=strategy,
        dtype=dtype,
        token_slack=token_slack,
        ranks_per_group=ranks_per_group,
        memory_budget=memory_budget,
        profile=profile,
        model=model,
    )
    lengths, mask = whole_numbers("plan", "lengths", lengths), one_mask_or_more("plan", mask)
    if groups is not None:
        return made_by.plan_of_groups(lengths, mask, _groups_of(groups, strategy, ranks_per_group, memory_budget))
    made = made_by.plans(lengths, mask)[0]
    warn_of_choice(made_by)
    return made


def _groups_of(groups: Any, strategy: str, ranks_per_group: int, memory_budget: int) -> list[list[int]]:
    """Return the ranks of each document; raise InvalidArgumentError where an option goes with strategies only."""
    if strategy != _evenspan.DEFAULT_STRATEGY or ranks_per_group or memory_budget:
        raise InvalidArgumentError(
            "[plan] groups say where documents lie, so strategy, ranks_per_group and memory_budget have no say; leave "
            "them out"
        )
    if not isinstance(groups, Sequence) or isinstance(groups, str | bytes | bytearray):
        raise InvalidArgumentError(
            f"[plan] groups must be a list of the ranks of each document, it is {described(groups)}; give one such as "
            "[[0, 1], [2]]"
        )
    return [whole_numbers("plan", f"the group of document {d}", group) for d, group in enumerate(groups)]


def warn_of_choice(made_by: _evenspan.Planner) -> None:
    """Warn when "auto" chose for a profile that nobody named, or planned another strategy than the shortest one."""
    if note := made_by.take_note():
        warnings.warn(f"[plan] {note}", stacklevel=3)


def bind(
    plan: _evenspan.Plan,
    group: dist.ProcessGroup | None = None,
    *,
    device: torch.device | str = "cpu",
    timeout: float | None = None,
) -> _evenspan.Executable:
    """Bind a plan to a group: compares it over the ranks and prepares this rank's program, once per (plan, group).

    `torch.ops.evenspan.attention(query, key, value, executable.handle)` is what compiled code calls.

    Args:
        plan: The same plan on every rank.
        group: A process group of `plan.ranks` ranks.
        device: Where the tensors live.
        timeout: Seconds that a wait for another rank may take; None is what the group has, 300 at its first use.

    Raises:
        InvalidArgumentError: The group has another number of ranks than the plan; `device` is none.
        CommunicationError: The ranks hold different plans (on every rank, with the part that differs), or one died.
    """
    check_plan("bind", plan)
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        raise InvalidArgumentError(
            f"[bind] device must be one of torch, it is {described(device)}; give that of the tensors"
        ) from None
    communicator = communicator_of(group, timeout)
    bound = _executables.setdefault(plan, {})
    key = (communicator, str(device))
    if key not in bound:
        bound[key] = _evenspan.Executable(plan, communicator, str(device))
    return bound[key]


@contextlib.contextmanager
def telling(operation: str, group: dist.ProcessGroup | None) -> Iterator[None]:
    """Check arguments in the block of it: the other ranks hear of those that are refused on this one alone."""
    try:
        yield
    except InvalidArgumentError as error:
        communicator_of(group).refuse(operation, str(error))
        raise


def bind_for(
    operation: str, plan: _evenspan.Plan, group: dist.ProcessGroup | None, **tensors: torch.Tensor | None
) -> _evenspan.Executable:
    """Bind a plan to a group and the device of the first tensor.

    Raises:
        InvalidArgumentError: What is given is no plan, or no tensor; the other ranks hear of it.
        CommunicationError: As of `bind`.
    """
    with telling(operation, group):
        check_plan(operation, plan)
        for name, tensor in tensors.items():
            check_tensor(operation, name, tensor)
    return bind(plan, group, device=next(x.device for x in tensors.values() if x is not None))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: _evenspan.Plan,
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """Exact attention of every document over all ranks, on this rank's rows; scores are scaled by head_dim ** -0.5.

    Differentiable. Every rank calls it, and the backward pass, in the same order; ranks without rows too.

    Args:
        query: This rank's rows, [tokens, heads, head_dim] of the plan's type.
        key: [tokens, kv_heads, head_dim].
        value: [tokens, kv_heads, head_dim].
        plan: The same plan on every rank.
        group: A process group of `plan.ranks` ranks.

    Returns:
        [tokens, heads, head_dim].

    Raises:
        InvalidArgumentError: The tensors or the group do not fit the plan.
        CommunicationError: A rank failed or holds another plan.
    """
    executable = bind_for("attention", plan, group, query=query, key=key, value=value)
    return _evenspan.attention(query, key, value, executable)


def check_plan(operation: str, plan: Any) -> None:
    """Raise InvalidArgumentError unless it is a plan."""
    if not isinstance(plan, _evenspan.Plan):
        raise InvalidArgumentError(
            f"[{operation}] plan must be a plan of evenspan, it is {described(plan)}; make one with evenspan.plan"
        )


def check_tensor(operation: str, name: str, tensor: Any) -> None:
    """Raise InvalidArgumentError unless it is a tensor."""
    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgumentError(f"[{operation}] {name} must be a tensor, it is {described(tensor)}; give one")


def check_dimension(operation: str, name: str, tensor: Any, dim: Any) -> int:
    """Return a dimension; raise InvalidArgumentError unless `tensor` is one that has it."""
    check_tensor(operation, name, tensor)
    number = whole_number(operation, "dim", dim)
    if not -tensor.dim() <= number < tensor.dim():
        raise InvalidArgumentError(
            f"[{operation}] {name} must have dimension {number}, it has {tensor.dim()} dimensions: "
            f"{list(tensor.shape)}; give that of the tokens"
        )
    return number


def rows_of(plan: _evenspan.Plan, rank: int) -> torch.Tensor:
    """Return where the rank's rows stand in the packed batch: int64 [tokens of the rank]."""
    known = _rows.setdefault(plan, {})
    if rank not in known:
        lengths = torch.tensor(plan.lengths, dtype=torch.int64)
        document, begin, end = torch.tensor(plan.placement[rank], dtype=torch.int64).view(-1, 3).unbind(1)
        sizes = end - begin
        # From a row's number on the rank to its place in the batch, the same for all rows of a span.
        shifts = (lengths.cumsum(0) - lengths)[document] + begin - (sizes.cumsum(0) - sizes)
        known[rank] = torch.arange(int(sizes.sum())) + shifts.repeat_interleave(sizes)
    return known[rank]


def shard(
    tensor: torch.Tensor, plan: _evenspan.Plan, rank: int | dist.ProcessGroup | None = None, *, dim: int = 0
) -> torch.Tensor:
    """Take a rank's rows of a whole tensor, in the plan's order. Differentiable, and without communication.

    Args:
        tensor: Holds the tokens of all documents, one after another, along `dim`.
        plan: The plan.
        rank: A rank, or the group whose rank this process is.
        dim: The dimension of the tokens.

    Raises:
        InvalidArgumentError: `tensor` has another number of tokens than the plan, or there is no such rank.
    """
    check_plan("shard", plan)
    dim = check_dimension("shard", "tensor", tensor, dim)
    if rank is None or isinstance(rank, dist.ProcessGroup):
        own = communicator_of(rank).rank
    else:
        own = whole_number("shard", "rank, if it is no process group,", rank)
    if not 0 <= own < plan.ranks:
        raise InvalidArgumentError(f"[shard] the rank must be in 0..{plan.ranks - 1}, it is {own}; give one of them")
    if tensor.size(dim) != plan.num_tokens:
        raise InvalidArgumentError(
            f"[shard] dimension {dim} must hold the plan's {plan.num_tokens} tokens, it has {tensor.size(dim)}"
        )
    return tensor.index_select(dim, rows_of(plan, own).to(tensor.device))


def unshard(
    local: torch.Tensor, plan: _evenspan.Plan, group: dist.ProcessGroup | None = None, *, dim: int = 0
) -> torch.Tensor:
    """Gather the rows of all ranks: the whole tensor, on every rank, outside autograd. Undoes `shard`.

    Args:
        local: This rank's rows along `dim`; all ranks give the same type and other dimensions.
        plan: The plan.
        group: A process group of `plan.ranks` ranks; every rank calls.
        dim: The dimension of the tokens.

    Raises:
        InvalidArgumentError: `local` has another number of rows than the plan gives this rank.
        CommunicationError: A rank failed.
    """
    communicator = communicator_of(group)
    with telling("unshard", group):
        check_plan("unshard", plan)
        dim = check_dimension("unshard", "local", local, dim)
        if communicator.size != plan.ranks:
            raise InvalidArgumentError(f"[unshard] the group must have {plan.ranks} ranks, it has {communicator.size}")
        expected = plan.tokens[communicator.rank]
        if local.size(dim) != expected:
            raise InvalidArgumentError(
                f"[unshard] rank {communicator.rank} must give {expected} rows, dimension {dim} has {local.size(dim)}"
            )
    rows = local.detach().movedim(dim, 0)
    padded = rows.new_zeros((max(plan.tokens), *rows.shape[1:]))
    padded[:expected] = rows
    whole = rows.new_empty((plan.num_tokens, *rows.shape[1:]))
    for rank, part in enumerate(communicator.all_gather(padded)):
        whole[rows_of(plan, rank).to(whole.device)] = part[: plan.tokens[rank]]
    return whole.movedim(0, dim)
