"""The part of flash_attn.flash_attn_interface that the peers call, with the names, orders and results of version 2.7.

On the CPU it is the module evenspan_peers_kernel, on other devices torch's own operators. What neither computes
(dropout, windows, soft caps, alibi) is refused.
"""

from __future__ import annotations

from typing import Any

import evenspan_peers_kernel as kernel
import torch

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
_aten = torch.ops.aten
_NOTHING = torch.empty(0)


def _refuse(
    dropout_p: float, window: tuple[int, int], softcap: float | None, alibi_slopes: torch.Tensor | None
) -> None:
    if dropout_p or tuple(window) != (-1, -1) or softcap or alibi_slopes is not None:
        raise NotImplementedError(
            f"[flash_attn] the stand-in has no dropout, window, softcap or alibi, it got {dropout_p=} {window=}"
        )


def _scale(q: torch.Tensor, softmax_scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale


def _aten_backward(
    gradients: tuple[torch.Tensor, ...], inputs: tuple[Any, ...], rng_state: torch.Tensor | None, scale: float
) -> None:
    rng = torch.zeros(2, dtype=torch.uint64, device=gradients[0].device) if rng_state is None else rng_state
    found = _aten._flash_attention_backward(*inputs, rng, torch.empty(0, device=rng.device), scale=scale)
    for gradient, value in zip(gradients, found, strict=True):
        gradient.copy_(value)


def _flash_attn_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float,
    softmax_scale: float | None,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float | None = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    return_softmax: bool = False,
) -> Result:
    """Attend: q [batch, rows, heads, dim], k and v [batch, keys, kv_heads, dim]; lse [batch, heads, rows]."""
    _refuse(dropout_p, (window_size_left, window_size_right), softcap, alibi_slopes)
    scale = _scale(q, softmax_scale)
    if q.is_cpu:
        out, lse = kernel.forward(q, k, v, scale, causal)
        return out, lse, _NOTHING, _NOTHING
    out, lse, rng, _, _ = _aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False, scale=scale
    )
    return out, lse, _NOTHING, rng


def _flash_attn_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    softmax_lse: torch.Tensor,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    dropout_p: float,
    softmax_scale: float | None,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float | None = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    rng_state: torch.Tensor | None = None,
) -> torch.Tensor:
    """Write dq, dk and dv; shapes as of `_flash_attn_forward`."""
    _refuse(dropout_p, (window_size_left, window_size_right), softcap, alibi_slopes)
    scale = _scale(q, softmax_scale)
    if q.is_cpu:
        kernel.backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, scale, causal)
    else:
        inputs = (dout, q, k, v, out, softmax_lse, None, None, q.shape[1], k.shape[1], 0.0, causal)
        _aten_backward((dq, dk, dv), inputs, rng_state, scale)
    return softmax_lse


def _flash_attn_varlen_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float | None,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float | None = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    return_softmax: bool = False,
    block_table: torch.Tensor | None = None,
    leftpad_k: torch.Tensor | None = None,
    seqused_k: torch.Tensor | None = None,
    zero_tensors: bool = False,
) -> Result:
    """Attend: q [rows, heads, dim], k and v [keys, kv_heads, dim]; lse [heads, rows]."""
    _refuse(dropout_p, (window_size_left, window_size_right), softcap, alibi_slopes)
    if block_table is not None or leftpad_k is not None or seqused_k is not None:
        raise NotImplementedError("[flash_attn] the stand-in has no pages and no padded keys")
    scale = _scale(q, softmax_scale)
    if q.is_cpu:
        out, lse = kernel.varlen_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, scale, causal)
        return out, lse, _NOTHING, _NOTHING
    cuts = (cu_seqlens_q.to(q.device), cu_seqlens_k.to(q.device), max_seqlen_q, max_seqlen_k)
    out, lse, rng, _, _ = _aten._flash_attention_forward(q, k, v, *cuts, 0.0, causal, False, scale=scale)
    return out, lse, _NOTHING, rng


def _flash_attn_varlen_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    softmax_lse: torch.Tensor,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float | None,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float | None = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    rng_state: torch.Tensor | None = None,
    zero_tensors: bool = False,
) -> torch.Tensor:
    """Write dq, dk and dv; shapes as of `_flash_attn_varlen_forward`."""
    _refuse(dropout_p, (window_size_left, window_size_right), softcap, alibi_slopes)
    scale = _scale(q, softmax_scale)
    if q.is_cpu:
        kernel.varlen_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, scale, causal)
    else:
        cuts = (cu_seqlens_q.to(q.device), cu_seqlens_k.to(q.device), max_seqlen_q, max_seqlen_k)
        _aten_backward((dq, dk, dv), (dout, q, k, v, out, softmax_lse, *cuts, 0.0, causal), rng_state, scale)
    return softmax_lse


class _Attention(torch.autograd.Function):
    """Differentiable attention; `cuts` is cu_seqlens and longest documents of queries and keys, or None."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cuts: tuple | None,
        scale: float | None,
        causal: bool,
    ) -> torch.Tensor:
        if cuts is None:
            out, lse, _, rng = _flash_attn_forward(q, k, v, 0.0, scale, causal)
        else:
            out, lse, _, rng = _flash_attn_varlen_forward(q, k, v, *cuts, 0.0, scale, causal)
        ctx.save_for_backward(q, k, v, out, lse, rng)
        ctx.options = (cuts, scale, causal)
        return out

    @staticmethod
    def backward(ctx: Any, *dout: torch.Tensor) -> tuple:
        q, k, v, out, lse, rng = ctx.saved_tensors
        cuts, scale, causal = ctx.options
        gradients = [torch.empty_like(x) for x in (q, k, v)]
        tensors = (dout[0], q, k, v, out, lse, *gradients)
        state = None if q.is_cpu else rng
        if cuts is None:
            _flash_attn_backward(*tensors, 0.0, scale, causal, rng_state=state)
        else:
            _flash_attn_varlen_backward(*tensors, *cuts, 0.0, scale, causal, rng_state=state)
        return (*gradients, None, None, None)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float | None = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor:
    """Differentiable attention of q [batch, rows, heads, dim], k and v [batch, keys, kv_heads, dim]."""
    _refuse(dropout_p, window_size, softcap, alibi_slopes)
    if return_attn_probs:
        raise NotImplementedError("[flash_attn] the stand-in returns the output alone")
    return _Attention.apply(q, k, v, None, softmax_scale, causal)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float | None = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """Differentiable attention of documents: q [rows, heads, dim], k and v [keys, kv_heads, dim]."""
    _refuse(dropout_p, window_size, softcap, alibi_slopes)
    if return_attn_probs or block_table is not None:
        raise NotImplementedError("[flash_attn] the stand-in returns the output alone and has no pages")
    return _Attention.apply(q, k, v, (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k), softmax_scale, causal)
