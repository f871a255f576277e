"""What a checkpoint folder is, told from its settings and the headers of its files: no weight is read."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from models.checkpoint.directory import TEXT_ENCODER, WEIGHTS, CheckpointConfig, find_vae, read_config
from models.checkpoint.keys import check_shapes
from models.checkpoint.load import empty_transformer
from models.config import Conditioning, Layout, TransformerConfig
from models.transformer import count_parameters
from models.vae import read_vae_config


def describe(folder: Path) -> str:
    """The rows of `inspect_checkpoint`, aligned, one on a line."""
    rows = inspect_checkpoint(folder)
    column = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{column}}  {value}" for name, value in rows)


def inspect_checkpoint(folder: Path) -> list[tuple[str, str]]:
    """Names and values of what the checkpoint in `folder` is.

    Raises ValueError for a folder that is no checkpoint, and for weights that do not fit its config, by name.
    """
    settings = read_config(folder)
    config = settings.transformer
    transformer = empty_transformer(config)
    shapes, dtypes = _read_header(folder / WEIGHTS)
    check_shapes(str(folder / WEIGHTS), shapes, transformer)
    schedule = settings.schedule
    pixels = config.latent_size * 2 ** (len(read_vae_config(find_vae(folder))["block_out_channels"]) - 1)
    return [
        ("design", _design(config)),
        ("conditioning", _conditioning(config)),
        ("depth, width, heads", f"{config.depth}, {config.width}, {config.heads}"),
        ("frames", f"{config.num_frames} of {pixels}x{pixels} pixels"),
        (
            "latents",
            f"{config.latent_channels}x{config.latent_size}x{config.latent_size}, "
            f"{config.tokens_per_frame} tokens a frame (patch {config.patch_size})",
        ),
        ("parameters", f"{count_parameters(transformer):,} stored as {', '.join(sorted(dtypes))}"),
        ("predicts", "noise and variance" if config.learn_sigma else "noise"),
        (
            "schedule",
            f"{schedule.num_train_timesteps} steps, linear betas {schedule.beta_start:g} to {schedule.beta_end:g}",
        ),
        ("vae", _vae(folder, settings)),
        *([("text encoder", _text_encoder(folder, settings))] if settings.max_tokens is not None else []),
        ("files", f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()):,} bytes"),
    ]


def _design(config: TransformerConfig) -> str:
    if config.layout is Layout.JOINT:
        return "joint attention over all tokens of all frames (DiT3D)"
    name = {"local": "local attention (Latte)", "matrix": "matrix attention (FrameDiT-G)"}.get(
        config.temporal.value, f"local and matrix attention (FrameDiT-H), fuse {config.fuse}"
    )
    matrix = config.matrix
    if matrix is None:
        return name
    return (
        f"{name}; matrix tokens {matrix.qk_tokens} for q and k, {matrix.v_tokens} for v, "
        f"{matrix.column_heads} x {matrix.row_heads} heads"
    )


def _conditioning(config: TransformerConfig) -> str:
    match config.conditioning:
        case Conditioning.CLASS:
            return f"class, {config.num_classes} of them"
        case Conditioning.TEXT:
            return f"text, encoded in {config.text_width} channels"
        case _:
            return "none"


def _vae(folder: Path, settings: CheckpointConfig) -> str:
    name = read_vae_config(find_vae(folder))["_class_name"]
    return f"{name}, scaling factor {settings.scaling_factor:g}"


def _text_encoder(folder: Path, settings: CheckpointConfig) -> str:
    path = folder / TEXT_ENCODER / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is a text model without {TEXT_ENCODER}/config.json")
    encoder = json.loads(path.read_text())
    return f"T5, {encoder['num_layers']} layers, width {encoder['d_model']}, at most {settings.max_tokens} tokens"


def _read_header(path: Path) -> tuple[dict[str, list[int]], set[str]]:
    """Shapes by name, and the dtypes in use."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}")
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return (
            {name: part.get_shape() for name, part in slices.items()},
            {part.get_dtype() for part in slices.values()},
        )
