"""The checkpoints that users have -> our folder: published training outputs, and diffusers folders of text models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoint.directory import TEXT_ENCODER, TOKENIZER, CheckpointConfig, find_vae, new_folder
from models.checkpoint.load import empty_transformer
from models.checkpoint.lora import merge_lora
from models.checkpoint.published import convert_state_dict
from models.checkpoint.save import save_checkpoint
from models.checkpoint.weights import read_diffusers_weights, read_state_dict
from models.config import Conditioning
from models.registry import TEXT_MODELS, PublishedModel, from_text_settings, published_model
from models.sampling.schedule import NoiseSchedule
from models.text import TextEncoder, load_encoder, load_tokenizer
from models.transformer import count_parameters
from models.vae import VideoDecoder, load_vae

# The published text-to-video sampling's own.
MAX_TOKENS = 120
HYBRID_TEXT_MODEL = "FrameDiTHT2V-XL/256-2-1-2-concat"

_TEXT_FAMILIES = {"LatteT2V": "LatteT2V", "LatteTransformer3DModel": "LatteT2V", "FrameDiTHT2V": "FrameDiT-H-T2V"}
_DESIGN = (
    "family",
    "num_col_attn_heads",
    "qk_col_attn_head_dim",
    "v_col_attn_head_dim",
    "fuse_mode",
    "u_type",
    "bias_type",
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Conversion:
    """What was made.

    Attributes:
        model_name: the published name, or the class of a diffusers folder's transformer.
        frame_size: height and width of a frame in pixels.
        parameters: of the transformer.
        merged: names of the published weights that a LoRA changed.
    """

    folder: Path
    model_name: str
    config: CheckpointConfig
    frame_size: int
    parameters: int
    dtype: torch.dtype
    merged: tuple[str, ...] = ()


def convert_published(
    source: Path,
    output: Path,
    *,
    model_name: str,
    num_frames: int,
    image_size: int,
    num_classes: int | None,
    vae: Path,
    dtype: torch.dtype = torch.float32,
    report: Report | None = None,
    finish: Callable[[Path, Conversion], None] | None = None,
) -> Conversion:
    """Make a checkpoint folder of a published class-conditional or unconditional `.pt`.

    Args:
        source: a training output (`ema` or `model` inside) or a bare state dict; .pt or .safetensors.
        output: the folder to make; it must not exist, and appears whole or not at all.
        model_name: as in `FrameDiTH-XL/128-512/2-softmax_u-concat`.
        num_frames, image_size: that it was trained on; the size in pixels.
        num_classes: None or 0 for an unconditional model.
        vae: a diffusers folder with the VAE that it was trained on.
        dtype: to store the weights in.
        report: is called with a line for each stage.
        finish: is called with the folder before it takes its name, to add files to it.

    Raises:
        ValueError: for what does not fit; keys are named. FileExistsError: where `output` holds something.
    """
    report = report or _silent
    published = published_model(model_name, num_frames=num_frames, image_size=image_size, num_classes=num_classes)
    if published.config.conditioning is Conditioning.TEXT:
        raise ValueError(
            f"{model_name} is a text model: convert a diffusers folder, with this file for its transformer"
        )
    report(f"reading {source}")
    state = read_state_dict(source)
    decoder = _read_vae(vae)
    if published.config.latent_size * decoder.pixels_per_latent != image_size:
        raise ValueError(
            f"image_size is {image_size}: with this VAE ({decoder.pixels_per_latent} pixels to a latent position) "
            f"{model_name} makes {published.config.latent_size * decoder.pixels_per_latent}"
        )
    config = CheckpointConfig(published.config, NoiseSchedule(), decoder.scaling_factor)
    parts = _Parts(model_name, published, config, state, decoder)
    return _write(parts, output, dtype, report, finish)


def convert_diffusers(
    source: Path,
    output: Path,
    *,
    transformer_weights: Path | None = None,
    model_name: str | None = None,
    lora: Path | None = None,
    lora_alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
    report: Report | None = None,
    finish: Callable[[Path, Conversion], None] | None = None,
) -> Conversion:
    """Make a checkpoint folder of a diffusers folder of the text family (the layout of Latte-1).

    Args:
        source: holds `transformer/`, `vae/` (or `vae_temporal_decoder/`, which is preferred), `text_encoder/`,
            `tokenizer/` and, where its noise schedule is another one, `scheduler/`.
        output: the folder to make; it must not exist, and appears whole or not at all.
        transformer_weights: a published text-to-video `.pt` to take instead of the weights in `transformer/`.
        model_name: the published name of `transformer_weights`; found by its keys where not given.
        lora: a LoRA (peft names) to merge into the weights.
        lora_alpha: where neither the LoRA's file nor an adapter_config.json beside it says.
        dtype: to store the weights in.
        report, finish: as in `convert_published`.

    Raises:
        ValueError: for what does not fit; keys are named. FileExistsError: where `output` holds something.
    """
    report = report or _silent
    settings = _read_json(source / "transformer" / "config.json")
    weights = transformer_weights or source / "transformer"
    report(f"reading {weights}")
    state = read_state_dict(weights) if transformer_weights else read_diffusers_weights(weights)
    if model_name is None and any(".matrix_attention." in key for key in state):
        model_name = HYBRID_TEXT_MODEL
    published = _text_model(settings, model_name)
    merged: list[str] = []
    if lora is not None:
        report(f"merging {lora}")
        merged = merge_lora(state, lora, lora_alpha)
    report(f"reading the VAE and the text encoder of {source}")
    decoder = _read_vae(find_vae(source))
    encoder = load_encoder(source / TEXT_ENCODER, dtype)
    text_encoder = TextEncoder(load_tokenizer(source / TOKENIZER), encoder, MAX_TOKENS)
    config = CheckpointConfig(
        published.config, _read_schedule(source), decoder.scaling_factor, MAX_TOKENS, cut_negative_to_prompt=True
    )
    name = model_name or str(settings["_class_name"])
    parts = _Parts(name, published, config, state, decoder, text_encoder, tuple(merged))
    return _write(parts, output, dtype, report, finish)


@dataclass(frozen=True)
class _Parts:
    """All that a checkpoint folder is made of; `state` still under its published names."""

    model_name: str
    published: PublishedModel
    config: CheckpointConfig
    state: dict[str, Tensor]
    vae: VideoDecoder
    text_encoder: TextEncoder | None = None
    merged: tuple[str, ...] = ()


def _write(
    parts: _Parts, output: Path, dtype: torch.dtype, report: Report, finish: Callable[[Path, Conversion], None] | None
) -> Conversion:
    report("renaming and folding the weights")
    transformer = parts.config.transformer
    weights = convert_state_dict(parts.state, parts.published)
    conversion = Conversion(
        folder=output,
        model_name=parts.model_name,
        config=parts.config,
        frame_size=transformer.latent_size * parts.vae.pixels_per_latent,
        parameters=count_parameters(empty_transformer(transformer)),
        dtype=dtype,
        merged=parts.merged,
    )
    report(f"writing {output}")
    with new_folder(output) as folder:
        save_checkpoint(folder, parts.config, weights, parts.vae, parts.text_encoder, dtype)
        if finish is not None:
            finish(folder, conversion)
    return conversion


def _text_model(settings: dict[str, Any], model_name: str | None) -> PublishedModel:
    """The model of a diffusers `config.json`, with the temporal design of `model_name` where that is given."""
    class_name = settings.get("_class_name")
    if class_name not in _TEXT_FAMILIES:
        raise ValueError(f"the transformer is a {class_name!r}; known are {', '.join(_TEXT_FAMILIES)}")
    if model_name is None:
        return from_text_settings({**settings, "family": _TEXT_FAMILIES[class_name]})
    if model_name not in TEXT_MODELS:
        raise ValueError(f"unknown text model {model_name!r}; known are {', '.join(TEXT_MODELS)}")
    row = TEXT_MODELS[model_name]
    design = {name: row[name] for name in _DESIGN if name in row}
    heads = {"num_row_attn_heads": "num_attention_heads", "row_attn_head_dim": "attention_head_dim"}
    renamed = {ours: settings[theirs] for ours, theirs in heads.items() if theirs in settings}
    return from_text_settings({**settings, **renamed, **design})


def _read_vae(folder: Path) -> VideoDecoder:
    vae: Any = load_vae(folder, torch.float32)
    return VideoDecoder(vae, float(vae.config.scaling_factor))


def _read_schedule(source: Path) -> NoiseSchedule:
    """The schedule in `scheduler/`, or the published one where there is none."""
    path = source / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return NoiseSchedule()
    settings = _read_json(path)
    supported = {"beta_schedule": "linear", "prediction_type": "epsilon", "trained_betas": None}
    for name, value in supported.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{path}: {name} is {settings[name]!r}; only {value!r} is supported")
    names = ("num_train_timesteps", "beta_start", "beta_end")
    return NoiseSchedule(**{name: settings[name] for name in names if name in settings})


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no {path}: a diffusers folder is expected")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _silent(_: str) -> None:
    pass
