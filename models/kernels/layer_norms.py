"""Layer norms and the additions around them, each in one pass over memory.

Shapes: B batch, T frames, N tokens per frame, D width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

_WARPS = 2


@triton.jit
def _modulated_norm(
    x, branch, branch_bias, gate, shift, scale, out,
    tokens_of_sample, tokens_of_frame, gate_batch, shift_batch, scale_batch, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, HAS_BRANCH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_GATE: tl.constexpr,
):  # fmt: skip
    """One program is one token."""
    token = tl.program_id(0).to(tl.int64)
    sample = token // tokens_of_sample
    channels = tl.arange(0, BLOCK)
    inside = channels < WIDTH
    value = tl.load(x + token * WIDTH + channels, mask=inside, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        added = tl.load(branch + token * WIDTH + channels, mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            bias_at = branch_bias + (token % tokens_of_frame) * WIDTH + channels
            added += tl.load(bias_at, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            added *= tl.load(gate + sample * gate_batch + channels, mask=inside, other=0.0).to(tl.float32)
        total = (value + added).to(x.dtype.element_ty)
        tl.store(x + token * WIDTH + channels, total, mask=inside)
        value = total.to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / WIDTH, 0.0)
    normalised = centred * tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
    scales = tl.load(scale + sample * scale_batch + channels, mask=inside, other=0.0).to(tl.float32)
    shifts = tl.load(shift + sample * shift_batch + channels, mask=inside, other=0.0).to(tl.float32)
    modulated = normalised * (1.0 + scales) + shifts
    tl.store(out + token * WIDTH + channels, modulated.to(out.dtype.element_ty), mask=inside)


def modulated_norm(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    eps: float,
    branch: Tensor | None = None,
    gate: Tensor | None = None,
    branch_bias: Tensor | None = None,
) -> Tensor:
    """`LayerNorm(x) (1 + scale) + shift`, where a branch is first added to `x`, in place: `x += gate (branch + bias)`.

    Args:
        x, branch: (B, T, N, D), contiguous.
        shift, scale, gate: (B, 1, 1, D), the channels contiguous.
        branch_bias: (N, D), contiguous.
    """
    out = torch.empty_like(x)
    num_tokens, width = x.numel() // x.shape[-1], x.shape[-1]
    _modulated_norm[(num_tokens,)](
        x, _or(branch, x), _or(branch_bias, x), _or(gate, shift), shift, scale, out,
        num_tokens // x.shape[0], x.shape[-2], _or(gate, shift).stride(0), shift.stride(0), scale.stride(0), eps,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        HAS_BRANCH=branch is not None,
        HAS_BIAS=branch_bias is not None,
        HAS_GATE=gate is not None,
        num_warps=_WARPS,
    )  # fmt: skip
    return out


@triton.jit
def _gated_add(
    x, branch, branch_bias, gate, tokens_of_sample, tokens_of_frame, gate_batch,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_GATE: tl.constexpr,
):  # fmt: skip
    """One program is one token."""
    token = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    inside = channels < WIDTH
    added = tl.load(branch + token * WIDTH + channels, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias_at = branch_bias + (token % tokens_of_frame) * WIDTH + channels
        added += tl.load(bias_at, mask=inside, other=0.0).to(tl.float32)
    if HAS_GATE:
        gate_at = gate + token // tokens_of_sample * gate_batch + channels
        added *= tl.load(gate_at, mask=inside, other=0.0).to(tl.float32)
    total = tl.load(x + token * WIDTH + channels, mask=inside, other=0.0).to(tl.float32) + added
    tl.store(x + token * WIDTH + channels, total.to(x.dtype.element_ty), mask=inside)


def gated_add(x: Tensor, branch: Tensor, gate: Tensor | None = None, branch_bias: Tensor | None = None) -> None:
    """`x += gate (branch + bias)`, with the arguments of `modulated_norm`."""
    num_tokens, width = x.numel() // x.shape[-1], x.shape[-1]
    _gated_add[(num_tokens,)](
        x, branch, _or(branch_bias, x), _or(gate, x),
        num_tokens // x.shape[0], x.shape[-2], _or(gate, x).stride(0),
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        HAS_BIAS=branch_bias is not None,
        HAS_GATE=gate is not None,
        num_warps=_WARPS,
    )  # fmt: skip


@triton.jit
def _joined_norms(
    a, b, b_bias, a_weight, a_shift, b_weight, b_shift, out, tokens_of_frame, a_eps, b_eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program is one token."""
    token = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    inside = channels < WIDTH
    of_a = tl.load(a + token * WIDTH + channels, mask=inside, other=0.0).to(tl.float32)
    of_b = tl.load(b + token * WIDTH + channels, mask=inside, other=0.0).to(tl.float32)
    of_b += tl.load(b_bias + (token % tokens_of_frame) * WIDTH + channels, mask=inside, other=0.0).to(tl.float32)
    of_a = tl.where(inside, of_a - tl.sum(of_a, 0) / WIDTH, 0.0)
    of_b = tl.where(inside, of_b - tl.sum(of_b, 0) / WIDTH, 0.0)
    of_a *= tl.rsqrt(tl.sum(of_a * of_a, 0) / WIDTH + a_eps)
    of_b *= tl.rsqrt(tl.sum(of_b * of_b, 0) / WIDTH + b_eps)
    of_a *= tl.load(a_weight + channels, mask=inside, other=0.0).to(tl.float32)
    of_b *= tl.load(b_weight + channels, mask=inside, other=0.0).to(tl.float32)
    of_a += tl.load(a_shift + channels, mask=inside, other=0.0).to(tl.float32)
    of_b += tl.load(b_shift + channels, mask=inside, other=0.0).to(tl.float32)
    out_at = out + token * 2 * WIDTH + channels
    tl.store(out_at, of_a.to(out.dtype.element_ty), mask=inside)
    tl.store(out_at + WIDTH, of_b.to(out.dtype.element_ty), mask=inside)


def joined_norms(a: Tensor, b: Tensor, b_bias: Tensor, norm_a: nn.LayerNorm, norm_b: nn.LayerNorm) -> Tensor:
    """`[norm_a(a); norm_b(b + b_bias)]` (B, T, N, 2 D) of `a` and `b` (B, T, N, D), contiguous, and `b_bias` (N, D)."""
    width = a.shape[-1]
    out = torch.empty(*a.shape[:-1], 2 * width, dtype=a.dtype, device=a.device)
    _joined_norms[(a.numel() // width,)](
        a, b, b_bias, norm_a.weight, norm_a.bias, norm_b.weight, norm_b.bias, out, a.shape[-2], norm_a.eps, norm_b.eps,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=_WARPS,
    )  # fmt: skip
    return out


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """A kernel takes a pointer also where it reads nothing."""
    return stand_in if tensor is None else tensor
