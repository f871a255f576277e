"""Patches, timesteps and sin-cos positions.

Shapes: B batch, T frames, C H W latent channels, height and width, p patch size, N tokens per frame, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 256


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """(B, T, C, H, W) -> (B, T, N, C p p), the channel slowest, as a convolution's kernel lies in memory."""
    b, t, c, h, w = latents.shape
    p = patch_size
    patches = latents.reshape(b, t, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 2, 4, 6)
    return patches.reshape(b, t, (h // p) * (w // p), c * p * p)


def unpatchify(patches: Tensor, patch_size: int, channels: int) -> Tensor:
    """(B, T, N, p p C), the channel fastest -> (B, T, C, H, W)."""
    b, t, n, _ = patches.shape
    p, side = patch_size, math.isqrt(n)
    pixels = patches.reshape(b, t, side, side, p, p, channels).permute(0, 1, 6, 2, 4, 3, 5)
    return pixels.reshape(b, t, channels, side * p, side * p)


class TimestepEmbedding(nn.Module):
    """Timesteps (B,) -> (B, D): sinusoids, cosines before sines, through a two-layer perceptron (as in DiT)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(FREQUENCIES, width)
        self.contract = nn.Linear(width, width)

    def forward(self, timesteps: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
        angles = timesteps[:, None].float() * torch.exp(-math.log(10000.0) * exponents)
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1)
        hidden: Tensor = self.contract(F.silu(self.expand(sinusoids.to(self.expand.weight.dtype))))
        return hidden


def frame_positions(num_frames: int, width: int) -> Tensor:
    """Sin-cos table (num_frames, D) of the frames' numbers."""
    return _sincos(torch.arange(num_frames, dtype=torch.float64), width).float()


def token_positions(side: int, width: int, interpolation: float = 1.0) -> Tensor:
    """Sin-cos table (side side, D) of a square grid: the first half of the channels for the column, the second the row.

    `interpolation` divides the positions (PixArt-alpha's scale for latents above 64 x 64).
    """
    grid = torch.arange(side, dtype=torch.float64) / interpolation
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    halves = [_sincos(axis.reshape(-1), width // 2) for axis in (columns, rows)]
    return torch.cat(halves, dim=1).float()


def _sincos(positions: Tensor, width: int) -> Tensor:
    omega = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1)
