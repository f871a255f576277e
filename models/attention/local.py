"""Self-attention over one axis of the video's tokens: within a frame, over time at one position, or over all tokens.

Shapes: B batch, T frames, N tokens per frame, D width, h heads, d = D / h; S sequences of L tokens.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.config import AttentionMode


class SelfAttention(nn.Module):
    """Multi-head self-attention: (B, T, N, D) -> (B, T, N, D). A subclass defines which tokens form a sequence."""

    def __init__(self, width: int, heads: int, mode: AttentionMode = AttentionMode.MATH) -> None:
        super().__init__()
        self.heads = heads
        self.mode = mode
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.out(self.attend(self.qkv(x)))
        return mixed

    def attend(self, qkv: Tensor) -> Tensor:
        """softmax(q kᵀ / sqrt d) v of each sequence: (B, T, N, 3 D) -> (B, T, N, D)."""
        raise NotImplementedError

    def _attend_sequences(self, qkv: Tensor) -> Tensor:
        """(S, L, 3 D) -> (S, L, D)."""
        sequences, length, _ = qkv.shape
        q, k, v = qkv.view(sequences, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (S, h, L, d) each
        out = scaled_dot_product_attention(q, k, v)
        return out.reshape(sequences, length, -1) if self.mode is AttentionMode.FLASH else _merge_heads(out)


class SpatialAttention(SelfAttention):
    """Attention of each frame's N tokens among themselves."""

    def attend(self, qkv: Tensor) -> Tensor:
        b, t, n, _ = qkv.shape
        return self._attend_sequences(qkv.view(b * t, n, -1)).view(b, t, n, -1)


class FullAttention(SelfAttention):
    """Joint attention of all T N tokens: full 3D attention (DiT3D)."""

    def attend(self, qkv: Tensor) -> Tensor:
        b, t, n, _ = qkv.shape
        return self._attend_sequences(qkv.view(b, t * n, -1)).view(b, t, n, -1)


class LocalAttention(SelfAttention):
    """Attention over the T frames at each token position: local factorized attention (Latte)."""

    def attend(self, qkv: Tensor) -> Tensor:
        b, t, n, _ = qkv.shape
        # Positions join the head axis, not the batch axis: a CUDA kernel's batch axis ends at 65,535.
        q, k, v = qkv.view(b, t, n, 3, self.heads, -1).permute(3, 0, 2, 4, 1, 5).reshape(3, b, n * self.heads, t, -1)
        out = scaled_dot_product_attention(q, k, v)  # (B, N h, T, d)
        if self.mode is AttentionMode.FLASH:
            return out.reshape(b, n, t, -1).transpose(1, 2)
        return out.view(b, n, self.heads, t, -1).permute(0, 3, 1, 2, 4).reshape(b, t, n, -1)


def _merge_heads(x: Tensor) -> Tensor:
    """(S, h, L, d) -> (S, L, D)."""
    return x.transpose(1, 2).flatten(2)
