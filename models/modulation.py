"""Adaptive layer norm: the condition's shift, scale and gate for every block, computed once per sample.

The condition is the same for every token of a sample, so the published per-token product collapses to one row, and the
rows of all blocks to one product.

Shapes: B batch, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class Modulation(NamedTuple):
    """For each block six (B, 1, 1, D): shift, scale, gate of its attention, then of its MLP; and the output's two."""

    blocks: list[tuple[Tensor, ...]]
    output: tuple[Tensor, ...]


class AdaLNZero(nn.Module):
    """Each block, and the output, has a linear map of its own, here stacked into one (DiT, class family)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.linear = nn.Linear(width, (6 * depth + 2) * width)

    def forward(self, condition: Tensor) -> Modulation:
        """`condition` (B, D): the timestep's embedding plus the label's."""
        rows = self.linear(F.silu(condition))
        return _split(rows.view(rows.shape[0], 6 * self.depth + 2, -1))


class AdaLNSingle(nn.Module):
    """One linear map for all blocks; each block adds a table of its own (PixArt-alpha, text family)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 6 * width)
        self.tables = nn.Parameter(torch.empty(depth, 6, width))
        self.output_table = nn.Parameter(torch.empty(2, width))

    def forward(self, condition: Tensor) -> Modulation:
        """`condition` (B, D): the timestep's embedding."""
        shared = self.linear(F.silu(condition)).view(-1, 1, 6, condition.shape[-1])
        blocks = (shared + self.tables).flatten(1, 2)
        return _split(torch.cat([blocks, condition[:, None] + self.output_table], dim=1))


def _split(rows: Tensor) -> Modulation:
    """(B, 6 depth + 2, D) -> views of it, ready to broadcast over frames and tokens."""
    parts = rows[:, :, None, None].unbind(1)
    return Modulation([parts[i : i + 6] for i in range(0, len(parts) - 2, 6)], parts[-2:])


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`LayerNorm(x) (1 + scale) + shift`."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)
