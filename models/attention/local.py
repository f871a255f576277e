"""Self-attention over one axis of the video's tokens: within a frame, over time at one position, or over all tokens.

Shapes: B batch, T frames, N tokens per frame, D width, h heads, d = D / h; S sequences of L tokens.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.attention.frame_split import FrameSplit, Pending
from models.config import AttentionMode


class SelfAttention(nn.Module):
    """Multi-head self-attention: (B, T, N, D) -> (B, T, N, D). A subclass defines which tokens form a sequence."""

    def __init__(self, width: int, heads: int, mode: AttentionMode = AttentionMode.MATH) -> None:
        super().__init__()
        self.heads = heads
        self.mode = mode
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, split: FrameSplit | None = None) -> Tensor:
        """With `split`, `x` has the frames of this process, and so has the result."""
        mixed: Tensor = self.out(self.attend(self.qkv(x)))
        return mixed

    def attend(self, qkv: Tensor) -> Tensor:
        """softmax(q kᵀ / sqrt d) v of each sequence: (B, T, N, 3 D) -> (B, T, N, D)."""
        raise NotImplementedError

    def _attend_sequences(self, qkv: Tensor, heads: int | None = None) -> Tensor:
        """(S, L, 3 D) -> (S, L, D). Some of the `heads` have some of the D channels."""
        sequences, length, _ = qkv.shape
        q, k, v = qkv.view(sequences, length, 3, heads or self.heads, -1).permute(2, 0, 3, 1, 4)  # (S, h, L, d) each
        out = scaled_dot_product_attention(q, k, v)
        return out.reshape(sequences, length, -1) if self.mode is AttentionMode.FLASH else _merge_heads(out)


class SpatialAttention(SelfAttention):
    """Attention of each frame's N tokens among themselves."""

    def attend(self, qkv: Tensor) -> Tensor:
        b, t, n, _ = qkv.shape
        return self._attend_sequences(qkv.view(b * t, n, -1)).view(b, t, n, -1)


class FullAttention(SelfAttention):
    """Joint attention of all T N tokens: full 3D attention (DiT3D)."""

    def forward(self, x: Tensor, split: FrameSplit | None = None) -> Tensor:
        if split is None:
            return super().forward(x)
        mixed: Tensor = self.out(self._attend_split(self.qkv(x), split))
        return mixed

    def attend(self, qkv: Tensor) -> Tensor:
        b, t, n, _ = qkv.shape
        return self._attend_sequences(qkv.view(b, t * n, -1)).view(b, t, n, -1)

    def _attend_split(self, qkv: Tensor, split: FrameSplit) -> Tensor:
        """Each process attends with some of the heads."""
        b, t, n, _ = qkv.shape
        shares = split.shares(self.heads)
        spread = split.spread(qkv.view(b, t, n, 3, self.heads, -1), 4, shares).wait()  # (B, all T, N, 3, share of h, d)
        heads = spread.shape[4]
        mixed = spread[:, :, :, 0].flatten(3)  # of a process without heads
        if heads:
            mixed = self._attend_sequences(spread.reshape(b, split.num_frames * n, -1), heads)
        mixed = mixed.reshape(b, split.num_frames, n, heads, spread.shape[5])
        return split.collect(mixed, 3, shares).wait().flatten(3)


class LocalAttention(SelfAttention):
    """Attention over the T frames at each token position: local factorized attention (Latte)."""

    def forward(self, x: Tensor, split: FrameSplit | None = None) -> Tensor:
        if split is None:
            return super().forward(x)
        return self.collect(super().forward(self.spread(x, split).wait()), x.shape[2], split).wait()

    def spread(self, x: Tensor, split: FrameSplit) -> Pending:
        """(B, S, N, D) -> (B, T, n, D): each process gets all frames of some of the N positions."""
        return split.spread(x, 2, split.shares(x.shape[2]))

    def collect(self, x: Tensor, num_tokens: int, split: FrameSplit) -> Pending:
        """(B, T, n, D) -> (B, S, N, D), the inverse of `spread` with N = `num_tokens`."""
        return split.collect(x, 2, split.shares(num_tokens))

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
