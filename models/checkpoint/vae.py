"""The VAE folder of a checkpoint (diffusers layout): reading and writing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import CLASS_NAMES, AutoencoderConfig
from models.checkpoint.files import check_files
from models.checkpoint.json_file import read_json
from models.checkpoint.keys import build_with_weights
from models.checkpoint.weights import DIFFUSERS_FILES, read_folder
from models.vae import VideoDecoder

# The attention of early autoencoders, such as sd-vae-ft-ema: the old name of each layer and the present one.
_OLD_LAYERS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_KEY = re.compile(rf"(.+\.attentions\.\d+)\.({'|'.join(_OLD_LAYERS)})\.(weight|bias)")


def load_video_decoder(
    folder: Path,
    scaling_factor: float,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    floor_pixels: bool = False,
) -> VideoDecoder:
    """Load the VAE of `folder` (safetensors only) to `device`. Raises as `load_vae` does."""
    if dtype == torch.float16 and read_vae_config(folder).force_upcast:
        dtype = torch.float32  # the activations of this VAE overflow float16
    vae = load_vae(folder, dtype, safetensors_only=True)
    return VideoDecoder(vae.to(device), scaling_factor, floor_pixels=floor_pixels)


def save_video_decoder(decoder: VideoDecoder, folder: Path, dtype: torch.dtype) -> None:
    """Write the VAE to `folder` as `load_video_decoder` reads it. Its weights are narrowed to `dtype` in place."""
    save_vae(decoder.vae.to(dtype), folder)


def read_vae_config(folder: Path) -> AutoencoderConfig:
    """Read the config.json of a VAE folder.

    Raises ValueError if it is missing or broken, and, by name, for a class or settings that are not implemented.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a VAE folder: it has no config.json (the diffusers layout is expected)")
    values = read_json(path)
    if values.get("_class_name") not in CLASS_NAMES:
        raise ValueError(f"{path} says _class_name {values.get('_class_name')!r}; known are {', '.join(CLASS_NAMES)}")
    try:
        return AutoencoderConfig.from_json(values)
    except ValueError as error:
        raise ValueError(f"cannot use {path}: {error}") from error


def load_vae(folder: Path, dtype: torch.dtype, *, safetensors_only: bool = False) -> Autoencoder:
    """Load the VAE of a diffusers folder in `dtype` to the CPU.

    Raises ValueError if `folder` is not a VAE folder, if a file of it is broken, and, by name, for weights that do not
    fit its config.
    """
    config = read_vae_config(folder)
    check_files(folder)
    state = read_folder(folder, DIFFUSERS_FILES, safetensors_only=safetensors_only)
    state = {_present_key(key): tensor for key, tensor in state.items()}
    return build_with_weights(lambda: Autoencoder(config), state, str(folder), dtype)


def save_vae(vae: Autoencoder, folder: Path) -> None:
    """Write a VAE folder that diffusers reads, too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(vae.config.to_json(), indent=2) + "\n")
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in vae.state_dict().items()}
    save_file(state, folder / DIFFUSERS_FILES[0], {"format": "pt"})


def _present_key(key: str) -> str:
    old = _OLD_KEY.fullmatch(key)
    return f"{old[1]}.{_OLD_LAYERS[old[2]]}.{old[3]}" if old else key
