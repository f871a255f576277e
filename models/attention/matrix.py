"""Matrix attention: whole frames attend to whole frames (the paper's section on frame-level matrix attention).

A frame is one N x D matrix X. A matrix linear maps both sides, Y = Uᵀ X W + bias: U mixes tokens, W mixes channels. Uᵀ
is stored as (M, N), with its softmax or normalisation applied at conversion; W as a linear layer's weight (out, in);
the bias as the full (M, D) matrix.

Tokens first, (Uᵀ X) W, costs M N D + M D D; channels first, Uᵀ (X W), costs N D D + M N D. Tokens first is cheaper if
and only if M < N. Maps of the same input that start with the same side share one product.

Shapes: B batch, T frames, N tokens per frame, M mapped tokens, D width, c column heads, r row heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.frame_split import FrameSplit, Pending
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
            return self.output(self.attend(q, k, v, self.config.column_heads))
        columns = split.shares(self.config.column_heads)
        q, k, v = (self.spread(part, columns, split).wait() for part in (q, k, v))
        mixed = self.attend(q, k, v, columns[split.rank])
        return self.output(self.collect(mixed, columns, split).wait())

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys (B, T, M of both, D), and values (B, T, M of values, D)."""
        return *self._queries_and_keys(x), self._values(x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, columns: int) -> Tensor:
        """softmax(q kᵀ / sqrt((M / c) (D / r))) v over the T frames, of some of the column heads: (B, T, M, D)."""
        if not columns:
            return v
        q, k, v = (self._heads(part, columns) for part in (q, k, v))
        return self._merge(F.scaled_dot_product_attention(q, k, v), columns)

    def spread(self, x: Tensor, columns: Sequence[int], split: FrameSplit) -> Pending:
        """Exchange mapped frames (B, T, M, D): each process gets some of the column heads of all frames."""
        tokens = x.shape[2] // self.config.column_heads
        return split.spread(x, 2, [tokens * share for share in columns])

    def collect(self, mixed: Tensor, columns: Sequence[int], split: FrameSplit) -> Pending:
        """The inverse of `spread`, for the values."""
        tokens = self.config.v_tokens // self.config.column_heads
        return split.collect(mixed, 2, [tokens * share for share in columns])

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
        return mix_tokens(self.mix_v, F.linear(x, self.weight_v), self.bias_v)

    def _heads(self, x: Tensor, c: int) -> Tensor:
        """(B, T, M, D) -> (B, c r, T, (M / c) (D / r))."""
        b, t, _, _ = x.shape
        r = self.config.row_heads
        return x.view(b, t, c, x.shape[2] // c, r, -1).permute(0, 2, 4, 1, 3, 5).reshape(b, c * r, t, -1)

    def _merge(self, x: Tensor, c: int) -> Tensor:
        """(B, c r, T, (M / c) (D / r)) -> (B, T, M, D): the inverse of `_heads`."""
        b, _, t, _ = x.shape
        r, tokens = self.config.row_heads, self.config.v_tokens // self.config.column_heads
        return x.view(b, c, r, t, tokens, -1).permute(0, 3, 1, 4, 2, 5).reshape(b, t, c * tokens, -1)

    def output(self, x: Tensor) -> Tensor:
        """The map of the mixed values back to the tokens: (B, T, M, D) -> (B, T, N, D)."""
        tokens, v_tokens = self.mix_out.shape
        if tokens < v_tokens:
            return F.linear(mix_tokens(self.mix_out, x), self.weight_out) + self.bias_out
        return mix_tokens(self.mix_out, F.linear(x, self.weight_out), self.bias_out)


def mix_tokens(mixing: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """(M, N), (B, T, N, D), (M, D) -> (B, T, M, D): `mixing @ frame + bias` for every frame."""
    # `mixing @ x` makes transposed copies of `x` and of the result; a batched product over the frames makes none.
    frames = x.flatten(0, 1)
    shared = mixing.expand(len(frames), -1, -1)
    mixed = torch.bmm(shared, frames) if bias is None else torch.baddbmm(bias, shared, frames)
    return mixed.view(*x.shape[:2], *mixed.shape[1:])
