"""Matrix attention: whole frames attend to whole frames (the paper's section on frame-level matrix attention).

A frame is one N x D matrix X. A matrix linear maps both sides, Y = Uᵀ X W + bias: U mixes tokens, W mixes channels. Uᵀ
is stored as (M, N), with its softmax or normalisation applied at conversion; W as a linear layer's weight (out, in);
the bias as the full (M, D) matrix.

Tokens first, (Uᵀ X) W, costs M N D + M D D; channels first, Uᵀ (X W), costs N D D + M N D. Tokens first is cheaper if
and only if M < N. Maps of the same input that start with the same side share one product.

Shapes: B batch, T frames, N tokens per frame, M mapped tokens, D width, c column heads, r row heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.frame_split import FrameSplit, Pending, part_of
from models.config import MatrixAttentionConfig


class MatrixAttention(nn.Module):
    """(B, T, N, D) -> (B, T, N, D): each of the c r heads attends over the T frames.

    A frame's vector in a head is one flattened (M / c) x (D / r) block of its mapped matrix.
    """

    def __init__(self, config: MatrixAttentionConfig, tokens: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.qk_tokens_first = config.qk_tokens < tokens
        self.v_tokens_first = config.v_tokens < tokens
        self.out_tokens_first = tokens < config.v_tokens
        self.mix_qk = nn.Parameter(torch.empty(2, config.qk_tokens, tokens))
        self.weight_qk = nn.Parameter(torch.empty(2, width, width))
        self.bias_qk = nn.Parameter(torch.empty(2, config.qk_tokens, width))
        self.mix_v = nn.Parameter(torch.empty(config.v_tokens, tokens))
        self.weight_v = nn.Parameter(torch.empty(width, width))
        self.bias_v = nn.Parameter(torch.empty(config.v_tokens, width))
        self.mix_out = nn.Parameter(torch.empty(tokens, config.v_tokens))
        self.weight_out = nn.Parameter(torch.empty(width, width))
        self.bias_out = nn.Parameter(torch.empty(tokens, width))

    def forward(self, x: Tensor, split: FrameSplit | None = None) -> Tensor:
        """With `split`, `x` has the frames of this process, and so has the result."""
        q, k, v = self.project(x)
        if split is None:
            return self.output(self.attend(q, k, v))
        q, k, v = (self.spread(part, split).wait() for part in (q, k, v))
        return self.output(self.collect(self.attend(q, k, v, self.heads_of(split)), split).wait())

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys (B, T, M, D), and values (B, T, N or M, D), their tokens mixed only if that comes first."""
        return *self._queries_and_keys(x), self._values(x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: range | None = None) -> Tensor:
        """softmax(q kᵀ / sqrt((M / c) (D / r))) v over the T frames, of all row heads or of some with their channels.

        Tokens are mixed as far as that needs no other channels: the values' before it, and those of the result after it
        if channels come last there.
        """
        heads = range(self.config.row_heads) if heads is None else heads
        if not self.v_tokens_first:
            v = mix_tokens(self.mix_v, v, self.bias_v[:, self.channels_of(heads)])
        mixed = v
        if heads:
            q, k, v = (self._heads(part, len(heads)) for part in (q, k, v))
            mixed = self._merge(F.scaled_dot_product_attention(q, k, v), len(heads))
        return mix_tokens(self.mix_out, mixed) if self.out_tokens_first else mixed

    def output(self, x: Tensor) -> Tensor:
        """The rest of the map of the mixed values back to the tokens, which needs all channels: (B, T, N, D)."""
        if self.out_tokens_first:
            return F.linear(x, self.weight_out) + self.bias_out
        return mix_tokens(self.mix_out, F.linear(x, self.weight_out), self.bias_out)

    def heads_of(self, split: FrameSplit) -> range:
        """The row heads of this process, where every process attends with some of them."""
        part = part_of(split.shares(self.config.row_heads), split.rank)
        return range(part.start, part.stop)

    def channels_of(self, heads: range) -> slice:
        size = len(self.weight_v) // self.config.row_heads
        return slice(heads.start * size, heads.stop * size)

    def spread(self, x: Tensor, split: FrameSplit) -> Pending:
        """Exchange mapped frames (B, S, M, D): each process gets the channels of its row heads of all frames."""
        return split.spread(x, 3, self._channel_shares(split))

    def collect(self, mixed: Tensor, split: FrameSplit) -> Pending:
        """The inverse of `spread`."""
        return split.collect(mixed, 3, self._channel_shares(split))

    def _channel_shares(self, split: FrameSplit) -> list[int]:
        size = len(self.weight_v) // self.config.row_heads
        return [size * share for share in split.shares(self.config.row_heads)]

    def _queries_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.qk_tokens_first:
            maps = zip(self.mix_qk, self.weight_qk, self.bias_qk, strict=True)
            q, k = (F.linear(mix_tokens(u, x), w) + bias for u, w, bias in maps)  # (Uᵀ X) W + bias
        else:
            channels = F.linear(x, self.weight_qk.flatten(0, 1)).chunk(2, dim=-1)  # 2 x (B, T, N, D): X W
            maps = zip(self.mix_qk, channels, self.bias_qk, strict=True)
            q, k = (mix_tokens(u, y, bias) for u, y, bias in maps)  # Uᵀ (X W) + bias
        return q, k

    def _values(self, x: Tensor) -> Tensor:
        if self.v_tokens_first:
            return F.linear(mix_tokens(self.mix_v, x), self.weight_v) + self.bias_v
        return F.linear(x, self.weight_v)

    def _heads(self, x: Tensor, r: int) -> Tensor:
        """(B, T, M, D) -> (B, c r, T, (M / c) (D / r))."""
        b, t, m, _ = x.shape
        c = self.config.column_heads
        return x.view(b, t, c, m // c, r, -1).permute(0, 2, 4, 1, 3, 5).reshape(b, c * r, t, -1)

    def _merge(self, x: Tensor, r: int) -> Tensor:
        """(B, c r, T, (M / c) (D / r)) -> (B, T, M, D): the inverse of `_heads`."""
        b, _, t, _ = x.shape
        c, m = self.config.column_heads, self.config.v_tokens
        return x.view(b, c, r, t, m // c, -1).permute(0, 3, 1, 4, 2, 5).reshape(b, t, m, -1)


def mix_tokens(mixing: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """(M, N), (B, T, N, D), (M, D) -> (B, T, M, D): `mixing @ frame + bias` for every frame."""
    # `mixing @ x` makes transposed copies of `x` and of the result; a batched product over the frames makes none.
    frames = x.flatten(0, 1)
    shared = mixing.expand(len(frames), -1, -1)
    mixed = torch.bmm(shared, frames) if bias is None else torch.baddbmm(bias, shared, frames)
    return mixed.view(*x.shape[:2], *mixed.shape[1:])
