"""Latents to frames and back: the variational autoencoder (VAE) that the model was trained with.

Shapes: T frames, C latent channels, H W latent height and width; a video's frames are (T, height, width, 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.autoencoder.autoencoder import Autoencoder

# The published text-to-video sampling decodes so many frames at once. The temporal decoder mixes the frames of a chunk,
# so the number is part of its result. The plain VAE decodes each frame alone: there, it only bounds memory.
FRAMES_PER_CHUNK = 14


class VideoDecoder:
    """VAE decoder for the latents of one video, in chunks of frames."""

    def __init__(
        self,
        vae: Autoencoder,
        scaling_factor: float,
        frames_per_chunk: int = FRAMES_PER_CHUNK,
        *,
        floor_pixels: bool = False,
    ) -> None:
        """Create a decoder.

        Args:
            scaling_factor: factor that training multiplied the VAE's latents by (0.18215 for sd-vae-ft-ema).
            frames_per_chunk: frames that are decoded at once.
            floor_pixels: round the pixels of a video down, as the published text-to-video sampling does. A single
                frame is an image, and the published sampling rounds images to the nearest level.
        """
        if frames_per_chunk < 1:
            raise ValueError(f"frames_per_chunk is {frames_per_chunk}: it must be at least 1")
        self.vae = vae.eval().requires_grad_(False)
        self.scaling_factor = scaling_factor
        self.frames_per_chunk = frames_per_chunk
        self.floor_pixels = floor_pixels

    @property
    def pixels_per_latent(self) -> int:
        """Height and width of one latent position in pixels."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        """C."""
        return self.vae.config.latent_channels

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode `latents` (1, T, C, H, W) to frames (T, height, width, 3), uint8 on the CPU.

        Raises ValueError for another shape, and for NaN or infinity in the latents or the pixels.
        """
        self._check(latents)
        chunks = torch.split(latents[0].float() / self.scaling_factor, self.frames_per_chunk)
        floor = self.floor_pixels and latents.shape[1] > 1
        return torch.cat([_to_uint8(self._decode_chunk(chunk), floor) for chunk in chunks])

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode `frames` (T, height, width, 3) uint8 to latents (1, T, C, H, W), float32 on the VAE's device.

        The latents are the mean of the VAE's posterior, so that the same frames always give the same latents. Raises
        ValueError for other frames.
        """
        size = self.pixels_per_latent
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.numel():
            raise ValueError(
                f"got frames of {frames.dtype} {tuple(frames.shape)}: uint8 (T, height, width, 3) is needed"
            )
        if frames.shape[1] % size or frames.shape[2] % size:
            raise ValueError(f"got frames of {frames.shape[2]}x{frames.shape[1]}: both must be multiples of {size}")
        chunks = torch.split(frames.permute(0, 3, 1, 2), self.frames_per_chunk)
        latents = torch.cat([self._encode_chunk(chunk) for chunk in chunks])
        return (latents.float() * self.scaling_factor).unsqueeze(0)

    def _encode_chunk(self, frames: Tensor) -> Tensor:
        pixels = frames.to(self.vae.device).float() / 255 * 2 - 1
        return self.vae.encode(pixels.to(self.vae.dtype)).mean

    def _decode_chunk(self, latents: Tensor) -> Tensor:
        pixels = self.vae.decode(latents.to(self.vae.device, self.vae.dtype))
        if not pixels.isfinite().all():
            raise ValueError(
                f"the VAE produced NaN or infinity in {self.vae.dtype}: load the checkpoint in a wider dtype"
            )
        return pixels

    def _check(self, latents: Tensor) -> None:
        channels = self.latent_channels
        if latents.ndim != 5 or latents.shape[0] != 1 or latents.shape[2] != channels:
            raise ValueError(f"got latents of shape {tuple(latents.shape)}: this VAE takes (1, T, {channels}, H, W)")
        if not latents.isfinite().all():
            raise ValueError("got latents with NaN or infinity: denoising diverged; use a wider dtype or less guidance")


def _to_uint8(pixels: Tensor, floor: bool) -> Tensor:
    """Round pixels (T, 3, height, width) in -1..1 down or to nearest: uint8 (T, height, width, 3) on the CPU."""
    levels = (pixels.float() * 0.5 + 0.5) * 255
    rounded = levels.add_(0 if floor else 0.5).clamp_(0, 255).to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).contiguous().cpu()
