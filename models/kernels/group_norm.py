"""Group norm with SiLU, and additions, of images whose channels lie together in memory (channels last).

Shapes: F images, C channels in G groups, P pixels of an image. PyTorch's own group norm copies such images to the
other layout and back.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

_CHUNKS = 32  # of an image, whose sums are taken side by side
_BLOCK_ELEMENTS = 8192
_BLOCKS_OF_PROGRAM = 4  # so that reading the sums of all chunks is little beside the image
_WARPS = 8


@triton.jit
def _chunk_sums(
    x, x_bias, sums, num_pixels, pixels_of_chunk,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Sums (F, chunks, 2, G) of the numbers of a chunk of an image, and of their squares, by group."""
    chunk, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channels, groups = tl.arange(0, CHANNELS), tl.arange(0, GROUPS)
    offset = tl.zeros([CHANNELS], dtype=tl.float32)
    if HAS_BIAS:
        offset = tl.load(x_bias + channels).to(tl.float32)
    totals = tl.zeros([BLOCK, CHANNELS], dtype=tl.float32)
    squares = tl.zeros([BLOCK, CHANNELS], dtype=tl.float32)
    end = tl.minimum((chunk + 1) * pixels_of_chunk, num_pixels)
    for start in range(chunk * pixels_of_chunk, end, BLOCK):
        pixels = start + tl.arange(0, BLOCK)
        at = x + (image * num_pixels + pixels)[:, None] * CHANNELS + channels[None, :]
        inside = (pixels < end)[:, None]
        tile = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tile = tl.where(inside, tile + offset[None, :], 0.0)
        totals += tile
        squares += tile * tile
    sums_at = sums + (image * tl.num_programs(0) + chunk) * 2 * GROUPS + groups
    tl.store(sums_at, tl.sum(tl.reshape(tl.sum(totals, 0), [GROUPS, CHANNELS // GROUPS]), 1))
    tl.store(sums_at + GROUPS, tl.sum(tl.reshape(tl.sum(squares, 0), [GROUPS, CHANNELS // GROUPS]), 1))


@triton.jit
def _normalise(
    x, x_bias, sums, weight, bias, out, num_pixels, eps,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One program is some blocks of pixels of one image."""
    image = tl.program_id(1).to(tl.int64)
    channels, groups, chunks = tl.arange(0, CHANNELS), tl.arange(0, GROUPS), tl.arange(0, CHUNKS)
    sums_at = sums + image * CHUNKS * 2 * GROUPS + chunks[:, None] * 2 * GROUPS + groups[None, :]
    count = num_pixels * (CHANNELS // GROUPS)
    mean = tl.sum(tl.load(sums_at), 0) / count
    variance = tl.sum(tl.load(sums_at + GROUPS), 0) / count - mean * mean
    rstd = tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    mean = tl.reshape(tl.broadcast_to(mean[:, None], [GROUPS, CHANNELS // GROUPS]), [CHANNELS])
    rstd = tl.reshape(tl.broadcast_to(rstd[:, None], [GROUPS, CHANNELS // GROUPS]), [CHANNELS])
    factor = rstd * tl.load(weight + channels).to(tl.float32)
    if HAS_BIAS:
        mean -= tl.load(x_bias + channels).to(tl.float32)
    offset = tl.load(bias + channels).to(tl.float32) - mean * factor
    for block in tl.static_range(BLOCKS):
        pixels = (tl.program_id(0) * BLOCKS + block) * BLOCK + tl.arange(0, BLOCK)
        inside = (pixels < num_pixels)[:, None]
        at = (image * num_pixels + pixels)[:, None] * CHANNELS + channels[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * factor[None, :] + offset[None, :]
        if SILU:
            value = value / (1.0 + tl.exp(-value))
        tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def group_norm(x: Tensor, norm: nn.GroupNorm, silu: bool, x_bias: Tensor | None = None) -> Tensor:
    """`norm(x + x_bias)`, or SiLU of it.

    Args:
        x: (F, C, H, W) in channels-last layout; C and G are powers of two.
        x_bias: (C,), such as that of the convolution before.
    """
    images, channels, height, width = x.shape
    pixels, groups = height * width, norm.num_groups
    sums = torch.empty(images, _CHUNKS, 2, groups, dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)  # in the same layout
    block = max(1, _BLOCK_ELEMENTS // channels)
    bias = x if x_bias is None else x_bias
    _chunk_sums[_CHUNKS, images](
        x, bias, sums, pixels, triton.cdiv(pixels, _CHUNKS),
        CHANNELS=channels,
        GROUPS=groups,
        BLOCK=block,
        HAS_BIAS=x_bias is not None,
        num_warps=_WARPS,
    )  # fmt: skip
    _normalise[triton.cdiv(pixels, block * _BLOCKS_OF_PROGRAM), images](
        x, bias, sums, norm.weight, norm.bias, out, pixels, norm.eps,
        CHANNELS=channels,
        GROUPS=groups,
        CHUNKS=_CHUNKS,
        BLOCK=block,
        BLOCKS=_BLOCKS_OF_PROGRAM,
        SILU=silu,
        HAS_BIAS=x_bias is not None,
        num_warps=_WARPS,
    )  # fmt: skip
    return out


@triton.jit
def _add_with_bias(x, y, bias, num_pixels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    channels = tl.arange(0, CHANNELS)
    pixels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (pixels < num_pixels)[:, None]
    at = pixels.to(tl.int64)[:, None] * CHANNELS + channels[None, :]
    total = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(y + at, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + channels).to(tl.float32)[None, :]
    tl.store(x + at, total.to(x.dtype.element_ty), mask=inside)


def add_with_bias(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    """`x += y + bias` of `x` and `y` (F, C, H, W) in channels-last layout and `bias` (C,). Returns `x`."""
    channels, num_pixels = x.shape[1], x.numel() // x.shape[1]
    block = max(1, _BLOCK_ELEMENTS // channels)
    _add_with_bias[(triton.cdiv(num_pixels, block),)](
        x, y, bias, num_pixels, CHANNELS=channels, BLOCK=block, num_warps=_WARPS
    )
    return x
