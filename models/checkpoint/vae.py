"""The VAE folder of a checkpoint (diffusers layout): reading and writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import nn

from models.checkpoint.files import check_files
from models.checkpoint.json_file import read_json
from models.checkpoint.keys import check_loading_info
from models.checkpoint.reading import reading
from models.vae import VAE, VideoDecoder

_CLASSES: dict[str, type[VAE]] = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderKLTemporalDecoder": AutoencoderKLTemporalDecoder,
}


def load_video_decoder(
    folder: Path,
    scaling_factor: float,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    floor_pixels: bool = False,
) -> VideoDecoder:
    """Load the VAE of `folder` (safetensors only) to `device`. Raises as `load_vae` does."""
    if dtype == torch.float16 and read_vae_config(folder).get("force_upcast", True):
        dtype = torch.float32  # `force_upcast`: the activations of this VAE overflow float16
    vae: Any = load_vae(folder, dtype, safetensors_only=True)
    return VideoDecoder(vae.to(device), scaling_factor, floor_pixels=floor_pixels)


def save_video_decoder(decoder: VideoDecoder, folder: Path, dtype: torch.dtype) -> None:
    """Write the VAE to `folder` as `load_video_decoder` reads it. Its weights are narrowed to `dtype` in place."""
    nn.Module.to(decoder.vae, dtype)  # the `to` of diffusers warns of every change of dtype
    decoder.vae.register_to_config(_name_or_path="")  # otherwise the path of the source folder
    decoder.vae.save_pretrained(folder, safe_serialization=True)


def read_vae_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a VAE folder. Raises ValueError if it is missing, broken or names an unknown class."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a VAE folder: it has no config.json (the diffusers layout is expected)")
    config = read_json(path)
    if config.get("_class_name") not in _CLASSES:
        raise ValueError(f"{path} says _class_name {config.get('_class_name')!r}; known are {', '.join(_CLASSES)}")
    return config


def load_vae(folder: Path, dtype: torch.dtype, *, safetensors_only: bool = False) -> VAE:
    """Load the VAE of a diffusers folder in `dtype` to the CPU.

    Raises ValueError if `folder` is not a VAE folder, if a file of it is broken, and, by name, for weights that do not
    fit its config.
    """
    vae_class: Any = _CLASSES[read_vae_config(folder)["_class_name"]]
    check_files(folder)
    with reading(folder):
        vae, info = vae_class.from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            use_safetensors=True if safetensors_only else None,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=True,  # `info` reports all of them
            output_loading_info=True,
        )
    # diffusers only warns of missing weights and then decodes with random ones.
    check_loading_info(folder, info)
    assert isinstance(vae, VAE)
    return vae
