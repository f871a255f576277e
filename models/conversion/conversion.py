"""Parts of a published checkpoint -> a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint.directory import CheckpointConfig, new_folder
from models.checkpoint.keys import check_finite
from models.checkpoint.load import empty_transformer
from models.checkpoint.save import save_checkpoint
from models.checkpoint.vae import load_vae
from models.conversion.state_dict import convert_state_dict
from models.registry import PublishedModel
from models.text import TextEncoder
from models.transformer import count_parameters
from models.vae import VideoDecoder

Report = Callable[[str], None]


@dataclass(frozen=True)
class Conversion:
    """A checkpoint that was made.

    Attributes:
        model_name: the published name, or the class of a diffusers folder's transformer.
        frame_size: height and width of a frame in pixels.
        parameters: number of parameters of the transformer.
        merged: names of the published weights that a LoRA changed.
    """

    folder: Path
    model_name: str
    config: CheckpointConfig
    frame_size: int
    parameters: int
    dtype: torch.dtype
    merged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """Where a conversion writes, and how it reports.

    Attributes:
        folder: is created; it must not exist, and appears complete or not at all.
        dtype: of the stored weights.
        report: is called with a line for each stage and for each setting that was chosen without an option.
        finish: is called with the folder before it gets its name, to add files to it.
    """

    folder: Path
    dtype: torch.dtype = torch.float32
    report: Report = lambda line: None
    finish: Callable[[Path, Conversion], None] = lambda folder, conversion: None


@dataclass(frozen=True)
class Parts:
    """Everything that a checkpoint folder is made of; `state` has its published names."""

    model_name: str
    published: PublishedModel
    config: CheckpointConfig
    state: dict[str, Tensor]
    vae: VideoDecoder
    text_encoder: TextEncoder | None = None
    merged: tuple[str, ...] = ()


def write_checkpoint(parts: Parts, output: Output) -> Conversion:
    """Convert the weights and write the folder.

    Raises ValueError, by name, for weights that do not fit; FileExistsError if the folder holds something.
    """
    output.report("renaming and folding the weights")
    transformer = parts.config.transformer
    weights = convert_state_dict(parts.state, parts.published)
    conversion = Conversion(
        folder=output.folder,
        model_name=parts.model_name,
        config=parts.config,
        frame_size=transformer.latent_size * parts.vae.pixels_per_latent,
        parameters=count_parameters(empty_transformer(transformer)),
        dtype=output.dtype,
        merged=parts.merged,
    )
    output.report(f"writing {output.folder}")
    with new_folder(output.folder) as folder:
        save_checkpoint(folder, parts.config, weights, parts.vae, parts.text_encoder, output.dtype)
        output.finish(folder, conversion)
    return conversion


def read_vae(folder: Path, scaling_factor: float | None) -> VideoDecoder:
    """The VAE of a diffusers folder, with its own scaling factor if `scaling_factor` is None.

    Raises ValueError as `load_vae` does, and for weights with NaN or infinity.
    """
    vae = load_vae(folder, torch.float32)
    check_finite(f"the VAE in {folder}", vae.state_dict())
    return VideoDecoder(vae, vae.config.scaling_factor if scaling_factor is None else scaling_factor)
