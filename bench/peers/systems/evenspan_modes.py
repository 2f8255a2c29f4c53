"""Evenspan through its public Python functions."""

from __future__ import annotations

from itertools import accumulate

import evenspan
import torch
from batches import DTYPES, Batch
from layouts import Layout

from systems.protocol import Attention, System

MODES = (("auto", True), ("sequence_aware", False))  # strategy, with a profile


class Evenspan:
    """One strategy, with or without a profile of the machine."""

    version = "of this tree"

    def __init__(self, strategy: str, profiled: bool = False) -> None:
        """Take the strategy's name."""
        self.name = f"evenspan {strategy}"
        self.strategy = strategy
        self._profiled = profiled
        self._plans: dict[Batch, evenspan.Plan] = {}

    def unsupported(self, batch: Batch) -> str | None:
        """Refuse to go without the profile that belongs to the mode."""
        return "there is no profile, the run did not calibrate" if self._profiled and batch.profile is None else None

    def plan(self, batch: Batch) -> evenspan.Plan:
        """Plan, once per batch."""
        if batch not in self._plans:
            self._plans[batch] = evenspan.plan(
                batch.lengths,
                batch.ranks,
                strategy=self.strategy,
                heads=batch.shape.heads,
                kv_heads=batch.shape.kv_heads,
                head_dim=batch.shape.head_dim,
                dtype=DTYPES[batch.dtype],
                profile=batch.profile if self._profiled else None,
            )
        return self._plans[batch]

    def layout(self, batch: Batch) -> Layout:
        """Return the plan's placement."""
        starts = [0, *accumulate(batch.lengths)]
        rows = [
            torch.cat(
                [torch.empty(0, dtype=torch.int64)] + [torch.arange(starts[d] + a, starts[d] + b) for d, a, b in own]
            )
            for own in self.plan(batch).placement
        ]
        return Layout(rows, list(batch.lengths))

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Bind the plan."""
        plan = self.plan(batch)
        evenspan.bind(
            plan, device=torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        )
        return lambda q, k, v: evenspan.attention(q, k, v, plan)

    def pairs(self, batch: Batch) -> list[int] | None:
        """Count the plan's: the executor calls the kernel without the stand-in."""
        return [round(batch.shape.heads * pairs) for pairs in self.plan(batch).pairs]


def systems() -> list[System]:
    """Return the modes."""
    return [Evenspan(*mode) for mode in MODES]
