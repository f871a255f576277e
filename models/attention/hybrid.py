"""FrameDiT-H's temporal attention: local and matrix attention of the same input, normalised and fused.

Shapes: B batch, T frames, N tokens per frame, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.frame_split import FrameSplit
from models.attention.local import LocalAttention
from models.attention.matrix import MatrixAttention
from models.config import Fuse, MatrixAttentionConfig

EPS = 1e-5


class HybridAttention(nn.Module):
    """(B, T, N, D) -> (B, T, N, D): `fuse(LayerNorm(local(x)), LayerNorm(matrix(x)))`."""

    def __init__(self, config: MatrixAttentionConfig, fuse: Fuse, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.local = LocalAttention(width, heads)
        self.matrix = MatrixAttention(config, tokens, width)
        self.norm_local = nn.LayerNorm(width, eps=EPS)
        self.norm_matrix = nn.LayerNorm(width, eps=EPS)
        self.fuse = FUSIONS[fuse](tokens, width)

    def forward(self, x: Tensor, split: FrameSplit | None = None) -> Tensor:
        """With `split`, `x` has the frames of this process, and so has the result."""
        local, matrix = (self.local(x), self.matrix(x)) if split is None else self._attend_split(x, split)
        fused: Tensor = self.fuse(x, self.norm_local(local), self.norm_matrix(matrix))
        return fused

    def _attend_split(self, x: Tensor, split: FrameSplit) -> tuple[Tensor, Tensor]:
        """The outputs of both attentions: one computes while the other one exchanges tokens."""
        local, matrix = self.local, self.matrix
        positions = local.spread(x, split)
        q, k, v = (matrix.spread(part, split) for part in matrix.project(x))
        attended = local.collect(local(positions.wait()), x.shape[2], split)
        mixed = matrix.collect(matrix.attend(q.wait(), k.wait(), v.wait(), matrix.heads_of(split)), split)
        return attended.wait(), matrix.output(mixed.wait())


class Concat(nn.Module):
    """`W [local; global] + b`."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        # linear(cat[local, global]), as two products over the halves of the weight, which avoids the concatenated copy.
        of_local, of_matrix = self.linear.weight.chunk(2, dim=1)
        fused = F.linear(local, of_local, self.linear.bias).flatten(0, 2)
        return torch.addmm(fused, matrix.flatten(0, 2), of_matrix.t()).view_as(x)


class Sum(nn.Module):
    """`(local + global) / sqrt 2`."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        return (local + matrix) * (1 / math.sqrt(2))


class Gated(nn.Module):
    """`gamma_local local s + gamma_global global (1 - s)` with `s = sigmoid(alpha)`, all three per channel."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.gamma_local = nn.Parameter(torch.full((width,), 1e-4))
        self.gamma_matrix = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        share = self.alpha.sigmoid()
        # gamma_local * local * share + gamma_matrix * matrix * (1 - share)
        return torch.addcmul(matrix * (self.gamma_matrix * (1 - share)), local, self.gamma_local * share)


class GatedNoScale(nn.Module):
    """`local s + global (1 - s)` with `s = sigmoid(alpha)`, alpha per token and channel."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(tokens, width))

    def forward(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        # local * s + matrix * (1 - s)
        return torch.lerp(matrix, local, self.alpha.sigmoid().expand_as(matrix))


class ContentGated(nn.Module):
    """`local s + global (1 - s)` with `s = sigmoid(Linear(x))`, x the input of the attention."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)

    def forward(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        # local * s + matrix * (1 - s)
        return torch.lerp(matrix, local, self.gate(x).sigmoid())


class DifferenceGated(ContentGated):
    """`local s + global (1 - s)` with `s = sigmoid(Linear(local - global))`."""

    def forward(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        return super().forward(local - matrix, local, matrix)


FUSIONS: dict[Fuse, type[nn.Module]] = {
    Fuse.CONCAT: Concat,
    Fuse.SUM: Sum,
    Fuse.GATED: Gated,
    Fuse.GATED_NO_SCALE: GatedNoScale,
    Fuse.CONTENT_GATED: ContentGated,
    Fuse.DIFFERENCE_GATED: DifferenceGated,
}
