"""Patches, timesteps and sin-cos positions.

Shapes: B batch, T frames, C H W latent channels, height and width, p patch size, N tokens per frame, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FREQUENCIES = 256


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """(B, T, C, H, W) -> (B, T, N, C p p), channels outermost: the memory order of a convolution kernel."""
    b, t, c, h, w = latents.shape
    p = patch_size
    patches = latents.reshape(b, t, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 2, 4, 6)
    return patches.reshape(b, t, (h // p) * (w // p), c * p * p)


def unpatchify(patches: Tensor, patch_size: int, channels: int) -> Tensor:
    """(B, T, N, p p C), channels innermost -> (B, T, C, H, W)."""
    b, t, n, _ = patches.shape
    p, side = patch_size, math.isqrt(n)
    pixels = patches.reshape(b, t, side, side, p, p, channels).permute(0, 1, 6, 2, 4, 3, 5)
    return pixels.reshape(b, t, channels, side * p, side * p)


def timestep_features(timesteps: Tensor) -> Tensor:
    """Sinusoidal features of timesteps, cosines before sines as in DiT: (B,) -> (B, 256) float32."""
    half = FREQUENCIES // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(10000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def frame_positions(num_frames: int, width: int) -> Tensor:
    """Sin-cos table of frame indices: (num_frames, D)."""
    return _sincos(torch.arange(num_frames, dtype=torch.float64), width).float()


def token_positions(side: int, width: int, interpolation: float = 1.0) -> Tensor:
    """Sin-cos table of a square grid, (side side, D): the first D / 2 channels encode the column, the others the row.

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
