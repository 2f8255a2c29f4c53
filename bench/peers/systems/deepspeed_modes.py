"""DeepSpeed: Ulysses with a local attention that knows documents, and FPDT."""

from __future__ import annotations

import importlib
import logging
import os
from importlib import metadata

import torch
import torch.distributed as dist
from batches import Batch
from flash_attn import flash_attn_varlen_func
from layouts import Layout, contiguous, cu_seqlens

from systems.protocol import Attention, Peer, System

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
import deepspeed.comm  # noqa: E402
from deepspeed.sequence.layer import DistributedAttention  # noqa: E402

# It compiles, at its start, an operator for all-reduce in shared memory, which nothing here does.
importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None


def start() -> None:
    """Let DeepSpeed take over torch's groups; it looks for MPI unless told not to."""
    if not deepspeed.comm.is_initialized():
        deepspeed.comm.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False)


class Ulysses(Peer):
    """DistributedAttention around variable-length attention over the whole batch with a part of the heads."""

    version = metadata.version("deepspeed")
    name = "DeepSpeed Ulysses"

    def unsupported(self, batch: Batch) -> str | None:
        """Refuse fewer kv heads than ranks."""
        if batch.shape.kv_heads < batch.ranks:
            return f"kv heads must not be fewer than ranks, {batch.shape.kv_heads} are fewer than {batch.ranks}"
        return None

    def layout(self, batch: Batch) -> Layout:
        """Pieces in order."""
        return contiguous(batch.lengths, batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Make the layer."""
        start()
        cuts, longest = cu_seqlens(layout.lengths), max(layout.lengths)

        def local(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            own = (x.squeeze(0) for x in (q, k, v))
            return flash_attn_varlen_func(*own, cuts, cuts, longest, longest, causal=True).unsqueeze(0)

        layer = DistributedAttention(local, dist.group.WORLD, scatter_idx=2, gather_idx=1)
        return lambda q, k, v: layer(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), 0).squeeze(0)


class Fpdt(Peer):
    """Listed, not run: its one operation is projection and attention together, and knows one document."""

    version = metadata.version("deepspeed")
    name = "DeepSpeed FPDT"

    def unsupported(self, batch: Batch) -> str | None:
        """Refuse everything."""
        return "its operation contains the projection of hidden states, so it has no attention step of its own"

    def layout(self, batch: Batch) -> Layout:
        """Pieces in order."""
        return contiguous(batch.lengths, batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Never called."""
        raise NotImplementedError


def systems() -> list[System]:
    """Return the modes."""
    return [Ulysses(), Fpdt()]
