"""Attention over one axis of the video's tokens: over a frame, over time at one position, or over everything.

Shapes: B batch, T frames, N tokens per frame, D width, h heads, d = D / h.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def attend_within_frames(qkv: Tensor, heads: int) -> Tensor:
    """Attention of each frame's N tokens among themselves: (B, T, N, 3 D) -> (B, T, N, D)."""
    b, t, n, _ = qkv.shape
    return _attend(qkv.view(b * t, n, -1), heads).view(b, t, n, -1)


def attend_over_everything(qkv: Tensor, heads: int) -> Tensor:
    """Joint attention over all T N tokens (full 3D): (B, T, N, 3 D) -> (B, T, N, D)."""
    b, t, n, _ = qkv.shape
    return _attend(qkv.view(b, t * n, -1), heads).view(b, t, n, -1)


def attend_over_time(qkv: Tensor, heads: int) -> Tensor:
    """Attention over the T frames at each token position: (B, T, N, 3 D) -> (B, T, N, D)."""
    b, t, n, _ = qkv.shape
    # Positions go to the head axis, not to the batch: a GPU kernel's batch axis ends at 65,535.
    q, k, v = qkv.view(b, t, n, 3, heads, -1).permute(3, 0, 2, 4, 1, 5).reshape(3, b, n * heads, t, -1)
    out = scaled_dot_product_attention(q, k, v)
    return out.view(b, n, heads, t, -1).permute(0, 3, 1, 2, 4).reshape(b, t, n, -1)


def _attend(qkv: Tensor, heads: int) -> Tensor:
    rows, length, _ = qkv.shape
    q, k, v = qkv.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, length, -1)


class SpatialAttention(nn.Module):
    """Multi-head self-attention within each frame: (B, T, N, D) -> (B, T, N, D)."""

    attend = staticmethod(attend_within_frames)

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.out(self.attend(self.qkv(x), self.heads))
        return mixed


class LocalAttention(SpatialAttention):
    """The same over time at each position: local factorized attention (Latte)."""

    attend = staticmethod(attend_over_time)


class FullAttention(SpatialAttention):
    """The same over all tokens of all frames: full 3D attention (DiT3D)."""

    attend = staticmethod(attend_over_everything)
