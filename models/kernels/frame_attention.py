"""Attention between frames as one kernel: local attention over time, and the core of matrix attention.

Shapes: B batch, T frames, M tokens of queries and keys, N tokens of values, D width, c column heads, r row heads.

Head (i, j) of a frame is a block of M / c tokens and D / r channels, flattened. Local attention is the case of one
token to a column head: c = M = N.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_FRAMES = 256
_MAX_BLOCK_QUERIES = 64
_SMALLEST_TILE = 16  # of a product on tensor cores
_LOG2_E = 1 / math.log(2)


@triton.jit
def _frame_attention(
    q, k, v, out, q_bias,
    num_frames, width, log2_scale,
    q_batch, q_frame, q_token, k_batch, k_frame, k_token, v_batch, v_frame, v_token, out_batch, out_frame, out_token,
    ROW_HEADS: tl.constexpr, QK_TOKENS: tl.constexpr, V_TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr, BLOCK_KEYS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One program computes one head for one block of query frames; all key frames are one tile."""
    head, query_block = tl.program_id(0) % ROW_HEADS, tl.program_id(0) // ROW_HEADS
    column, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    queries = query_block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    keys = tl.arange(0, BLOCK_KEYS)
    channels = tl.arange(0, BLOCK_CHANNELS)
    is_query = (queries < num_frames)[:, None] & (channels < CHANNELS)[None, :]
    is_key = (keys < num_frames)[:, None] & (channels < CHANNELS)[None, :]
    channels = head * CHANNELS + channels

    query_frames, key_frames = queries.to(tl.int64), keys.to(tl.int64)
    q_at = q + batch * q_batch + column * QK_TOKENS * q_token + (query_frames * q_frame)[:, None] + channels[None, :]
    k_at = k + batch * k_batch + column * QK_TOKENS * k_token + (key_frames * k_frame)[:, None] + channels[None, :]
    v_at = v + batch * v_batch + column * V_TOKENS * v_token + (key_frames * v_frame)[:, None] + channels[None, :]
    out_at = out + batch * out_batch + column * V_TOKENS * out_token + (query_frames * out_frame)[:, None]
    out_at += channels[None, :]

    scores = tl.zeros([BLOCK_QUERIES, BLOCK_KEYS], dtype=tl.float32)
    for token in tl.static_range(QK_TOKENS):
        q_tile = tl.load(q_at + token * q_token, mask=is_query, other=0.0)
        if HAS_BIAS:
            bias = tl.load(q_bias + (column * QK_TOKENS + token) * width + channels[None, :], mask=is_query, other=0.0)
            q_tile = (q_tile + bias).to(q_tile.dtype)
        k_tile = tl.load(k_at + token * k_token, mask=is_key, other=0.0)
        scores = tl.dot(q_tile, tl.trans(k_tile), scores)
    scores = tl.where((keys < num_frames)[None, :], scores * log2_scale, -1.0e30)
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    weights = (weights / tl.sum(weights, 1)[:, None]).to(v.dtype.element_ty)
    for token in tl.static_range(V_TOKENS):
        v_tile = tl.load(v_at + token * v_token, mask=is_key, other=0.0)
        mixed = tl.dot(weights, v_tile)
        tl.store(out_at + token * out_token, mixed.to(out.dtype.element_ty), mask=is_query)


def frame_attention(
    q: Tensor, k: Tensor, v: Tensor, column_heads: int, row_heads: int, q_bias: Tensor | None = None
) -> Tensor:
    """`softmax(q kᵀ / sqrt(M/c D/r)) v` for each of the c r heads, over the T <= `MAX_FRAMES` frames.

    Args:
        q, k: (B, T, M, D), the channels contiguous; the other strides are free.
        v: (B, T, N, D), likewise.
        q_bias: (M, D), added to each frame of `q`. A bias of `k` would add the same number to all scores of a query,
            which the softmax takes out again.

    Returns:
        (B, T, N, D), contiguous.
    """
    batch, num_frames, qk_tokens, width = q.shape
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    channels = width // row_heads
    block_keys = max(_SMALLEST_TILE, triton.next_power_of_2(num_frames))
    block_queries = min(block_keys, _MAX_BLOCK_QUERIES)
    scale = (qk_tokens // column_heads * channels) ** -0.5
    _frame_attention[row_heads * triton.cdiv(num_frames, block_queries), column_heads, batch](
        q, k, v, out, q if q_bias is None else q_bias,
        num_frames, width, scale * _LOG2_E,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        ROW_HEADS=row_heads,
        QK_TOKENS=qk_tokens // column_heads,
        V_TOKENS=v.shape[2] // column_heads,
        CHANNELS=channels,
        BLOCK_QUERIES=block_queries,
        BLOCK_KEYS=block_keys,
        BLOCK_CHANNELS=max(_SMALLEST_TILE, triton.next_power_of_2(channels)),
        HAS_BIAS=q_bias is not None,
        num_warps=min(8, block_keys // 16),
    )  # fmt: skip
    return out
