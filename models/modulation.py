"""Adaptive layer norm: the condition's shift, scale and gate for every block, computed once per sample.

All tokens of a sample share one condition, so one row per sample replaces the published row per token, and one product
computes the rows of all blocks.

Shapes: B batch, T frames, N tokens per frame, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class Modulation(NamedTuple):
    """Rows of shape (B, 1, 1, D).

    Attributes:
        blocks: six per block: shift, scale and gate of the attention, then of the MLP.
        output: shift and scale before the output layer.
    """

    blocks: list[tuple[Tensor, ...]]
    output: tuple[Tensor, ...]

    def rows(self, part: slice) -> Modulation:
        """Some of the B rows."""
        blocks = [tuple(tensor[part] for tensor in block) for block in self.blocks]
        return Modulation(blocks, tuple(tensor[part] for tensor in self.output))


class AdaLNZero(nn.Module):
    """A linear map per block and one for the output, stacked into one (DiT, class family): (B, D) -> `Modulation`."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.linear = nn.Linear(width, (6 * depth + 2) * width)

    def forward(self, condition: Tensor) -> Modulation:
        """`condition` (B, D): timestep embedding + label embedding."""
        rows = self.linear(F.silu(condition))
        return _split(rows.view(rows.shape[0], 6 * self.depth + 2, -1))


class AdaLNSingle(nn.Module):
    """One linear map for all blocks, a learned table per block (PixArt-alpha, text family): (B, D) -> `Modulation`."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 6 * width)
        self.tables = nn.Parameter(torch.empty(depth, 6, width))
        self.output_table = nn.Parameter(torch.empty(2, width))

    def forward(self, condition: Tensor) -> Modulation:
        """`condition` (B, D): timestep embedding."""
        shared = self.linear(F.silu(condition)).view(-1, 1, 6, condition.shape[-1])
        blocks = (shared + self.tables).flatten(1, 2)
        return _split(torch.cat([blocks, condition[:, None] + self.output_table], dim=1))


def _split(rows: Tensor) -> Modulation:
    """(B, 6 depth + 2, D) -> views that broadcast over frames and tokens."""
    parts = rows[:, :, None, None].unbind(1)
    return Modulation([parts[i : i + 6] for i in range(0, len(parts) - 2, 6)], parts[-2:])


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply adaptive layer norm: (B, T, N, D) and twice (B, 1, 1, D) -> (B, T, N, D)."""
    # (1 + scale) * norm(x) + shift
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)
