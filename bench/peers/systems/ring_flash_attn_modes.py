"""ring-flash-attn: three functions for one document, three for packed ones."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType

import torch
import torch.distributed as dist
from batches import Batch
from layouts import Layout, contiguous, cu_seqlens, per_document, stripe, zigzag

from systems.protocol import Attention, Peer, System, patched

# Its adapters for transformers name what newer versions of that library lack; nothing here uses them.
if "ring_flash_attn.adapters" not in sys.modules:
    adapters = ModuleType("ring_flash_attn.adapters")
    adapters.substitute_hf_flash_attn = adapters.update_ring_flash_attn_params = None
    sys.modules["ring_flash_attn.adapters"] = adapters

# `x.to(torch.float32)` of a float32 buffer is the buffer itself, which the next hop overwrites.
COPIES = {
    f"{name} = {block}.to(torch.float32)": f"{name} = {block}.to(torch.float32, copy=True)"
    for name in ("dq", "dk", "dv")
    for block in (f"block_{name}_buffer",)
}
COPIES_ZIGZAG = {old.replace("block_", ""): new.replace("block_", "") for old, new in COPIES.items()}
# dq is bfloat16 whatever the inputs are.
TYPE = {"dq.to(torch.bfloat16)": "dq.to(q.dtype)"}

ring = patched("ring_flash_attn.ring_flash_attn", {**COPIES, **TYPE})
ring_varlen = patched("ring_flash_attn.ring_flash_attn_varlen", {**COPIES, **TYPE})
striped = patched("ring_flash_attn.stripe_flash_attn", COPIES)
zigzagged = patched("ring_flash_attn.zigzag_ring_flash_attn", COPIES_ZIGZAG)
zigzag_varlen = patched("ring_flash_attn.zigzag_ring_flash_attn_varlen", COPIES_ZIGZAG)
llama3 = patched("ring_flash_attn.llama3_flash_attn_varlen", {})


class Basic(Peer):
    """The functions that know one document; several in a batch attend to each other."""

    version = metadata.version("ring-flash-attn")

    def __init__(self, mode: str) -> None:
        """Take "ring", "zigzag" or "stripe"."""
        self.name = f"ring-flash-attn {mode}"
        self._layout = {"ring": contiguous, "zigzag": zigzag, "stripe": stripe}[mode]
        self._function = {
            "ring": ring.ring_flash_attn_func,
            "zigzag": zigzagged.zigzag_ring_flash_attn_func,
            "stripe": striped.stripe_flash_attn_func,
        }[mode]

    def layout(self, batch: Batch) -> Layout:
        """Return the mode's layout."""
        return self._layout(batch.lengths, batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Call with a batch dimension of 1."""
        call = self._function
        return lambda q, k, v: call(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), causal=True).squeeze(0)


class Varlen(Peer):
    """The rings that cut every document into pieces for all ranks."""

    version = metadata.version("ring-flash-attn")

    def __init__(self, mode: str) -> None:
        """Take "ring_varlen" or "zigzag_varlen"."""
        self.name = f"ring-flash-attn {mode}"
        self._pieces = 2 if mode == "zigzag_varlen" else 1
        self._function = (
            zigzag_varlen.zigzag_ring_flash_attn_varlen_func
            if self._pieces == 2
            else ring_varlen.ring_flash_attn_varlen_func
        )

    def layout(self, batch: Batch) -> Layout:
        """Pad every document to a multiple of the pieces."""
        return per_document(batch.lengths, batch.ranks, self._pieces * batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Make the local cu_seqlens."""
        local = [length // batch.ranks for length in layout.lengths]
        cuts, longest, call = cu_seqlens(local), max(local), self._function
        return lambda q, k, v: call(q, k, v, cuts, longest, causal=True)


class Llama3(Peer):
    """Keys and values of all ranks gathered, `stride` kv heads at a time; None for all at once."""

    version = metadata.version("ring-flash-attn")

    def __init__(self, stride: int | None) -> None:
        """Take the stride."""
        self.name = "ring-flash-attn llama3_varlen" + ("" if stride is None else f"/{stride}")
        self._stride = stride

    def unsupported(self, batch: Batch) -> str | None:
        """Leave out what is the same as gathering all heads."""
        return "one kv head: as llama3_varlen" if self._stride == batch.shape.kv_heads else None

    def layout(self, batch: Batch) -> Layout:
        """Cut anywhere; pad the total to a multiple of the ranks."""
        return contiguous(batch.lengths, batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Make cu_seqlens of the queries and keys of this rank."""
        cuts = llama3.llama3_flash_attn_prepare_cu_seqlens(cu_seqlens(layout.lengths), True, rank, batch.ranks)
        cuts_q, cuts_k, longest_q, longest_k, keys = cuts
        stride = self._stride or batch.shape.kv_heads

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return llama3.llama3_flash_attn_varlen_func(
                q, k, v, cuts_q, cuts_k, longest_q, longest_k, stride, keys, causal=True, group=dist.group.WORLD
            )

        return attend


def systems() -> list[System]:
    """Return the modes."""
    basic = [Basic(mode) for mode in ("ring", "zigzag", "stripe")]
    return [*basic, Varlen("ring_varlen"), Varlen("zigzag_varlen"), Llama3(None), Llama3(1)]
