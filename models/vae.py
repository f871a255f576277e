"""From latents to frames, through the variational autoencoder that the model was trained on.

Shapes: T frames, C latent channels, H W latent height and width; a video's frames are (T, height, width, 3).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from models.checkpoint.keys import check_loading_info

VAE = AutoencoderKL | AutoencoderKLTemporalDecoder

_CLASSES: dict[str, type[VAE]] = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderKLTemporalDecoder": AutoencoderKLTemporalDecoder,
}

# What the published text-to-video sampling decodes at once. The temporal decoder mixes the frames of a chunk, so the
# number is part of its result; for the plain VAE, which sees one frame at a time, it only bounds memory.
FRAMES_PER_CHUNK = 14


class VideoDecoder:
    """Decodes the latents of one video, a chunk of frames at a time."""

    def __init__(self, vae: VAE, scaling_factor: float, frames_per_chunk: int = FRAMES_PER_CHUNK) -> None:
        """`scaling_factor` is what training multiplied the VAE's latents by (0.18215 for sd-vae-ft-ema)."""
        if frames_per_chunk < 1:
            raise ValueError(f"frames_per_chunk is {frames_per_chunk}: it must be at least 1")
        self.vae: Any = vae.eval().requires_grad_(False)  # Any: diffusers annotates its models in part
        self.scaling_factor = scaling_factor
        self.frames_per_chunk = frames_per_chunk

    @staticmethod
    def load(folder: Path, scaling_factor: float, device: torch.device | str, dtype: torch.dtype) -> VideoDecoder:
        """The VAE of `folder` (diffusers layout, safetensors) on `device`. Raises as `load_vae` does."""
        if dtype == torch.float16 and read_vae_config(folder).get("force_upcast", True):
            dtype = torch.float32  # the folder says that its activations overflow float16
        vae: Any = load_vae(folder, dtype, safetensors_only=True)
        return VideoDecoder(vae.to(device), scaling_factor)

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the VAE as `load` reads it, its weights in `dtype`. They are narrowed in place."""
        nn.Module.to(self.vae, dtype)  # diffusers' own `to` warns of every change of dtype
        self.vae.register_to_config(_name_or_path="")  # otherwise the folder that it was read from
        self.vae.save_pretrained(folder, safe_serialization=True)

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels high and wide one latent position is."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        """C."""
        return int(self.vae.config.latent_channels)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames (T, height, width, 3), uint8 on the CPU, of `latents` (1, T, C, H, W).

        Raises ValueError for another shape, and where NaN or infinity comes in or out.
        """
        self._check(latents)
        chunks = torch.split(latents[0].float() / self.scaling_factor, self.frames_per_chunk)
        return torch.cat([_to_uint8(self._decode_chunk(chunk)) for chunk in chunks])

    def _decode_chunk(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.vae.device, self.vae.dtype)
        if isinstance(self.vae, AutoencoderKLTemporalDecoder):
            pixels: Tensor = self.vae.decode(latents, num_frames=len(latents)).sample
        else:
            pixels = self.vae.decode(latents).sample
        if not pixels.isfinite().all():
            raise ValueError(f"the VAE made NaN or infinity in {self.vae.dtype}: load the checkpoint in a wider dtype")
        return pixels

    def _check(self, latents: Tensor) -> None:
        channels = self.latent_channels
        if latents.ndim != 5 or latents.shape[0] != 1 or latents.shape[2] != channels:
            raise ValueError(f"got latents of shape {tuple(latents.shape)}: this VAE takes (1, T, {channels}, H, W)")
        if not latents.isfinite().all():
            raise ValueError("got latents with NaN or infinity: denoising diverged; use a wider dtype or less guidance")


def _to_uint8(pixels: Tensor) -> Tensor:
    """Pixels (T, 3, height, width) in -1..1 as uint8 (T, height, width, 3) on the CPU, rounded to the nearest level.

    So the published class-conditional sampling does it. The published text-to-video sampling cuts off instead, which
    is the same but for one level, and on average half a level darker than what the VAE said.
    """
    levels = (pixels.float() * 0.5 + 0.5) * 255
    return levels.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()


def read_vae_config(folder: Path) -> dict[str, Any]:
    """The config.json of a diffusers VAE folder. Raises ValueError where there is none, or one of an unknown class."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a VAE folder: it has no config.json (the diffusers layout is expected)")
    config: dict[str, Any] = json.loads(path.read_text())
    if config.get("_class_name") not in _CLASSES:
        raise ValueError(f"{path} says _class_name {config.get('_class_name')!r}; known are {', '.join(_CLASSES)}")
    return config


def load_vae(folder: Path, dtype: torch.dtype, *, safetensors_only: bool = False) -> VAE:
    """The VAE of a diffusers folder, in `dtype` on the CPU.

    Raises ValueError where `folder` is no VAE folder or its weights do not fit its config, naming them.
    """
    vae_class: Any = _CLASSES[read_vae_config(folder)["_class_name"]]
    # diffusers itself only warns of missing weights, and would decode with random ones.
    vae, info = vae_class.from_pretrained(
        folder,
        torch_dtype=dtype,
        local_files_only=True,
        use_safetensors=True if safetensors_only else None,
        low_cpu_mem_usage=False,
        ignore_mismatched_sizes=True,  # reported in `info`, all of them
        output_loading_info=True,
    )
    check_loading_info(folder, info)
    assert isinstance(vae, VAE)
    return vae
