"""torch's own context parallelism of scaled_dot_product_attention, which knows no documents."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.tensor.experimental._context_parallel._attention as ring
import torch.nn.functional as F
from batches import Batch
from flash_attn.flash_attn_interface import _flash_attn_backward, _flash_attn_forward
from layouts import Layout, zigzag
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.experimental import context_parallel

from systems.protocol import Attention, Peer, System

aten = torch.ops.aten
SEQUENCE = 2  # the dimension of the tokens in [batch, heads, rows, dim]


def _kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_causal: bool, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    out, lse, _, _ = _flash_attn_forward(q, k, v, 0.0, None, is_causal)
    return out.transpose(1, 2), lse


def _kernel_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    is_causal: bool,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g, q, k, v, o = (x.transpose(1, 2) for x in (grad_out, query, key, value, out))
    gradients = [torch.empty_like(x) for x in (q, k, v)]
    _flash_attn_backward(g, q, k, v, o, logsumexp, *gradients, 0.0, None, is_causal)
    dq, dk, dv = (x.transpose(1, 2) for x in gradients)
    return dq, dk, dv


def _locals(tensors: tuple[Any, ...]) -> tuple[DeviceMesh, list[torch.Tensor]]:
    return tensors[0].device_mesh, [x.to_local() if isinstance(x, DTensor) else x for x in tensors]


def _wrap(mesh: DeviceMesh, results: tuple[torch.Tensor, ...]) -> tuple[DTensor, ...]:
    return tuple(DTensor.from_local(x, mesh, [Shard(SEQUENCE)], run_check=False) for x in results)


def _forward(op: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[DTensor, ...]:
    """Do for the CPU's operator what torch does for those of CUDA: its ring, around the stand-in's kernel."""
    mesh, (q, k, v) = _locals(args[:3])
    causal = args[4] if len(args) > 4 else kwargs.get("is_causal", False)
    group = mesh.get_group()
    return _wrap(mesh, ring._templated_ring_attention(group, SEQUENCE, _kernel, q, k, v, is_causal=causal)[:2])


def _backward(op: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[DTensor, ...]:
    mesh, (g, q, k, v, out, lse) = _locals(args[:6])
    group = mesh.get_group()
    found = ring._templated_ring_attention_backward(
        group, SEQUENCE, _kernel_backward, g, "grad_out", q, k, v, out, lse, is_causal=args[7]
    )
    return _wrap(mesh, found[:3])


# The table has CUDA's operators alone.
ring.custom_ops[aten._scaled_dot_product_flash_attention_for_cpu.default] = _forward
ring.custom_ops[aten._scaled_dot_product_flash_attention_for_cpu_backward.default] = _backward


class ContextParallel(Peer):
    """The context manager around F.scaled_dot_product_attention, with its load balancing."""

    version = torch.__version__
    _mesh: DeviceMesh | None = None
    _entered: Any = None

    def __init__(self, rotate: str) -> None:
        """Take how keys and values travel: "allgather" or "alltoall"."""
        self.name = f"torch CP {rotate}"
        self._rotate = rotate

    def layout(self, batch: Batch) -> Layout:
        """Pieces r and 2P - 1 - r."""
        return zigzag(batch.lengths, batch.ranks)

    def prepare(self, batch: Batch, layout: Layout, rank: int) -> Attention:
        """Make the mesh, once."""
        if ContextParallel._mesh is None:
            kind = "cuda" if torch.cuda.is_available() else "cpu"
            ContextParallel._mesh = init_device_mesh(kind, (dist.get_world_size(),))
            # Entered for good: it replaces F.scaled_dot_product_attention, forward and backward, and wants a buffer.
            buffer = torch.zeros(2 * dist.get_world_size())
            ContextParallel._entered = context_parallel(ContextParallel._mesh, buffers=[buffer], buffer_seq_dims=[0])
            ContextParallel._entered.__enter__()
        rotate = self._rotate
        groups = batch.shape.heads != batch.shape.kv_heads

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            ring.set_rotate_method(rotate)
            local = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
            out = F.scaled_dot_product_attention(*local, is_causal=True, enable_gqa=groups)
            return out.squeeze(0).transpose(0, 1)

        return attend


def systems() -> list[System]:
    """Return the modes."""
    return [ContextParallel("allgather"), ContextParallel("alltoall")]
