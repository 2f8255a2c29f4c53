"""The plans of an attached model's batches, for the type that its layers compute in and each window that they have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from evenspan import _evenspan, _sharding
from evenspan._groups import communicator_of
from evenspan.huggingface._attention import Step
from evenspan.huggingface._masks import CAUSAL
from evenspan.huggingface._models import Shape

CACHED_PLANS = 16  # of a model


class Plans:
    """Plans batches ahead of their turn, and binds their plans."""

    def __init__(
        self,
        group: dist.ProcessGroup | None,
        shape: Shape,
        sizes: tuple[int, int, int, int] | None,
        options: dict[str, Any],
        dtype: torch.dtype | str | None,
        prove: Callable[[], Shape] | None = None,
    ) -> None:
        """Plan a batch at once, so that options which no plan has are refused here.

        Args:
            group: The ranks.
            shape: Of the model's attention.
            sizes: Of the model, for a profile.
            options: Of `evenspan.plan`.
            dtype: Of queries, keys and values, until autocast makes others of them; a name too. By default the shape's.
            prove: Returns the shape when the first batch is planned, where `shape` is what the configuration says.

        Raises:
            Error: As `evenspan.plan`.
        """
        dtype = None if dtype is None else _sharding.torch_type(dtype, operation="attach")
        self._group = group
        self._shape = shape
        self._sizes = None if sizes is None else (len(shape.windows), *sizes[1:])
        self._options = options
        self._given = dtype
        self._dtype = dtype or shape.dtype
        self._prove = prove
        self._planners: dict[torch.dtype, _evenspan.Planner] = {}
        self._make(self._dtype, capacity=1).plans([1], "causal")

    def _kinds(self) -> dict[int, int]:
        """Return how many layers there are of each window, those that see most first."""
        count = Counter(self._shape.windows.values())
        return dict(sorted(count.items(), key=lambda kind: -math.inf if kind[0] == CAUSAL else -kind[0]))

    def _make(self, dtype: torch.dtype, capacity: int) -> _evenspan.Planner:
        return _sharding.planner(
            communicator_of(self._group).size,
            heads=self._shape.heads,
            kv_heads=self._shape.kv_heads,
            head_dim=self._shape.head_dim,
            dtype=dtype,
            model=self._sizes,
            layers=[(count, None if window == CAUSAL else window) for window, count in self._kinds().items()],
            capacity=capacity,
            **self._options,
        )

    def _planner(self) -> _evenspan.Planner:
        if self._prove is not None:
            self._shape = self._prove()
            self._dtype = self._given or self._shape.dtype
            self._prove = None
        if self._dtype not in self._planners:
            self._planners[self._dtype] = self._make(self._dtype, CACHED_PLANS)
        return self._planners[self._dtype]

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the batches so far, see `Context.planning`."""
        counts = [planner.counts for planner in self._planners.values()]
        names = ("made", "made_ahead", "hits", "ready", "waits")
        return {name: sum(each[name] for each in counts) for name in names}

    def prefetch(self, lengths: list[int]) -> None:
        """Begin to plan a batch on a thread."""
        self._planner().prefetch(lengths, "causal")

    def plans(self, lengths: list[int]) -> dict[int, _evenspan.Plan]:
        """Return the batch's plans, all on one placement, by the windows of the layers that they are for."""
        planner = self._planner()
        plans = planner.plans(lengths, "causal")
        _sharding.warn_of_choice(planner)
        return dict(zip(self._kinds(), plans, strict=True))

    def micro_batches(self, lengths: list[int], tokens: int, batch_planner: str) -> list[list[int]]:
        """Return which of a step's documents share a micro-batch of at most so many tokens on all ranks."""
        planner = self._planner()
        dealt = planner.micro_batches(lengths, tokens, batch_planner)
        _sharding.warn_of_choice(planner)
        return dealt

    def step(self, plans: dict[int, _evenspan.Plan], device: torch.device) -> Step:
        """Bind what `plans` returned for the model's layers; every rank calls."""
        executables = {window: _sharding.bind(plan, self._group, device=device) for window, plan in plans.items()}
        return Step(self._shape.windows, executables, self._dtype, self._compute_in)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _compute_in(self, dtype: torch.dtype) -> None:
        """Plan the next batches for queries, keys and values of a narrower type."""
        self._dtype = dtype
