"""Models -> our checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint.directory import TEXT_ENCODER, TOKENIZER, VAE, WEIGHTS, CheckpointConfig, write_config
from models.checkpoint.load import check_parts
from models.checkpoint.text_encoder import save_text_encoder
from models.checkpoint.vae import save_video_decoder
from models.text import TextEncoder
from models.vae import VideoDecoder

STORED_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def save_checkpoint(
    folder: Path,
    config: CheckpointConfig,
    weights: dict[str, Tensor],
    vae: VideoDecoder,
    text_encoder: TextEncoder | None,
    dtype: torch.dtype,
) -> None:
    """Write a checkpoint into the existing `folder`, all its weights in `dtype`.

    `weights` is the transformer's state dict (our names). VAE and text encoder are narrowed to `dtype` in place.
    Raises ValueError where the parts do not fit each other, or hold numbers that `dtype` cannot.
    """
    check_parts(config.transformer, vae, text_encoder)
    write_config(folder, config)
    save_file({name: _narrowed(name, tensor, dtype) for name, tensor in weights.items()}, folder / WEIGHTS)
    save_video_decoder(vae, folder / VAE, dtype)
    if text_encoder is not None:
        save_text_encoder(text_encoder, folder / TEXT_ENCODER, folder / TOKENIZER, dtype)


def _narrowed(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    narrowed = tensor.detach().to("cpu", dtype).contiguous()
    if not narrowed.isfinite().all():
        raise ValueError(f"{name} holds numbers that {dtype} cannot hold: store the checkpoint in bfloat16 or float32")
    return narrowed
