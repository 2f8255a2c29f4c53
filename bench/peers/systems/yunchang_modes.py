"""yunchang: USP (heads split over some ranks, a ring over the others), and Ulysses alone. Neither knows documents."""

from __future__ import annotations

import contextlib
import io
from importlib import metadata

import torch
import torch.distributed as dist
from batches import Batch
from layouts import Layout, contiguous, zigzag

from systems.protocol import Attention, Peer, System, patched

with contextlib.redirect_stdout(io.StringIO()):
    from yunchang import LongContextAttention, UlyssesAttention, set_seq_parallel_pg
    from yunchang.hybrid.utils import RING_IMPL_DICT
    from yunchang.kernels import AttnType

# `x.to(torch.float32)` of a float32 buffer is the buffer itself, which the next hop overwrites.
zigzagged = patched(
    "yunchang.ring.zigzag_ring_flash_attn",
    {
        f"{name} = {name}_buffer.to(torch.float32)": f"{name} = {name}_buffer.to(torch.float32, copy=True)"
        for name in ("dq", "dk", "dv")
    },
)
RING_IMPL_DICT["zigzag"] = zigzagged.zigzag_ring_flash_attn_func


class Usp(Peer):
    """LongContextAttention with the zigzag ring: its basic one returns dq as bfloat16 whatever the inputs are."""

    version = metadata.version("yunchang")
    name = "yunchang USP"
    _groups_of = 0  # ranks that the package's process groups were made for

    def _degrees(self, batch: Batch) -> tuple[int, int]:
        """Return the ranks that split heads, and those of a ring: at least 2, since its ring of 1 sends to itself."""
        ulysses = min(batch.ranks // 2, batch.shape.kv_heads)
        return ulysses, batch.ranks // ulysses

    def layout(self, batch: Batch) -> Layout:
        """Zigzag over the ring, each pair of pieces cut over the ranks that split heads."""
        ulysses, ring = self._degrees(batch)
        return zigzag(batch.lengths, ring, ulysses)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Make the package's process groups, once."""
        ulysses, ring = self._degrees(batch)
        if Usp._groups_of != ulysses:
            set_seq_parallel_pg(ulysses, ring, rank, batch.ranks)
            Usp._groups_of = ulysses
        layer = LongContextAttention(ring_impl_type="zigzag", attn_type=AttnType.FA)
        return lambda q, k, v: layer(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), causal=True).squeeze(0)


class Ulysses(Peer):
    """UlyssesAttention, which takes no cu_seqlens."""

    version = metadata.version("yunchang")
    name = "yunchang Ulysses"

    def unsupported(self, batch: Batch) -> str | None:
        """Refuse kv heads that the ranks do not divide."""
        if batch.shape.kv_heads % batch.ranks:
            return f"kv heads must be a multiple of the ranks, {batch.shape.kv_heads} are none of {batch.ranks}"
        return None

    def layout(self, batch: Batch) -> Layout:
        """Pieces in order."""
        return contiguous(batch.lengths, batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Make the layer."""
        layer = UlyssesAttention(dist.group.WORLD, attn_type=AttnType.FA)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return layer(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), causal=True).squeeze(0)

        return attend


def systems() -> list[System]:
    """Return the modes."""
    return [Usp(), Ulysses()]
