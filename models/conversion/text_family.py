"""Diffusers folders of text-to-video models (the layout of Latte-1) -> checkpoint folders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from models.checkpoint.directory import TEXT_ENCODER, TOKENIZER, CheckpointConfig
from models.checkpoint.json_file import read_json
from models.checkpoint.keys import check_finite
from models.checkpoint.text_encoder import load_encoder
from models.checkpoint.tokenizer import load_tokenizer
from models.checkpoint.weights import DIFFUSERS_FILES, read_folder
from models.conversion.conversion import Conversion, Output, Parts, Report, read_vae, write_checkpoint
from models.conversion.lora import merge_lora, merge_trained_lora
from models.conversion.scheduler import read_schedule
from models.conversion.weights import read_training_output
from models.registry import TEXT_MODELS, PublishedModel, from_text_settings
from models.sampling.schedule import PredictionType
from models.text import TextEncoder

# The published text-to-video sampling cuts prompts to so many tokens.
MAX_TOKENS = 120
HYBRID_TEXT_MODEL = "FrameDiTHT2V-XL/256-2-1-2-concat"
# The published text-to-video script samples with the weights of training themselves, not with their moving average.
WEIGHT_ENTRIES = ("model", "ema")

_VAE, _TEMPORAL_VAE = "vae", "vae_temporal_decoder"
_FAMILIES = {
    "LatteT2V": "LatteT2V",
    "LatteTransformer3DModel": "LatteT2V",
    "FrameDiT_H_T2V": "FrameDiT-H-T2V",
    "FrameDiTHT2V": "FrameDiT-H-T2V",
}
_DESIGN = (
    "family",
    "num_col_attn_heads",
    "qk_col_attn_head_dim",
    "v_col_attn_head_dim",
    "fuse_mode",
    "u_type",
    "bias_type",
)


@dataclass(frozen=True)
class TextOptions:
    """The caller's choices for a text-to-video folder. None: as the folder says, or else as published.

    Attributes:
        transformer: a published text-to-video `.pt` to take in place of the weights in `transformer/`.
        model_name: the published name of `transformer`; found by its keys by default.
        weights: "model" (the default, as published) or "ema" of `transformer`.
        lora: a LoRA (peft names) to merge into the weights.
        lora_alpha: for a LoRA that does not say its alpha.
        temporal_decoder: decode with `vae_temporal_decoder/`; `vae/` is the published choice.
        temporal_attention: False leaves the temporal blocks out (`enable_temporal_attentions: False`).
        mask_feature: False lets the model attend to the padding of prompts.
        prediction: in place of the scheduler's `prediction_type`.
        learned_variance: whether the transformer predicts a variance, too.
        vae_scale: in place of the VAE's own scaling factor.
    """

    transformer: Path | None = None
    model_name: str | None = None
    weights: str | None = None
    lora: Path | None = None
    lora_alpha: float | None = None
    temporal_decoder: bool = False
    temporal_attention: bool = True
    mask_feature: bool = True
    prediction: PredictionType | None = None
    learned_variance: bool | None = None
    vae_scale: float | None = None


def convert_diffusers(source: Path, options: TextOptions, output: Output) -> Conversion:
    """Make a checkpoint folder of a diffusers folder of the text family.

    Args:
        source: holds `transformer/`, `vae/`, `text_encoder/`, `tokenizer/` and, where its noise schedule is another
            one, `scheduler/`.
        options: what to take from it, and what to lay over it.
        output: the folder to create.

    Raises:
        ValueError: for what does not fit; keys are named. FileExistsError: if the output folder holds something.
    """
    settings = read_json(source / "transformer" / "config.json")
    state, entry = _read_transformer(source, options, output.report)
    published, name = _published(settings, state, options)
    merged = _merge_loras(state, options, output.report)
    output.report(f"reading the VAE and the text encoder of {source}")
    vae = _TEMPORAL_VAE if options.temporal_decoder else _VAE
    if (source / _TEMPORAL_VAE).is_dir():
        output.report(f"decoder: {vae}/, of two")
    decoder = read_vae(source / vae, options.vae_scale)
    encoder = load_encoder(source / TEXT_ENCODER, output.dtype)
    check_finite(f"the text encoder in {source / TEXT_ENCODER}", encoder.state_dict())
    text_encoder = TextEncoder(load_tokenizer(source / TOKENIZER), encoder, MAX_TOKENS)
    schedule = read_schedule(source / "scheduler" / "scheduler_config.json")
    if options.prediction is not None:
        schedule = replace(schedule, prediction_type=options.prediction)
    config = CheckpointConfig(
        published.config,
        schedule,
        decoder.scaling_factor,
        floor_pixels=True,
        max_tokens=MAX_TOKENS,
        cut_negative_to_prompt=True,
        mask_feature=options.mask_feature,
        provenance={"model": name, "weights": entry, "vae": vae, "lora_weights": str(len(merged))},
    )
    return write_checkpoint(Parts(name, published, config, state, decoder, text_encoder, tuple(merged)), output)


def _read_transformer(source: Path, options: TextOptions, report: Report) -> tuple[dict[str, Tensor], str]:
    """The transformer's state dict, and which weights of a training output it is."""
    path = options.transformer
    report(f"reading {path or source / 'transformer'}")
    if path is None:
        if options.weights is not None:
            raise ValueError("a diffusers folder holds one set of weights: --weights chooses within a .pt")
        return read_folder(source / "transformer", DIFFUSERS_FILES), ""
    trained = read_training_output(path, WEIGHT_ENTRIES if options.weights is None else (options.weights,))
    report(f"weights: {trained.entry or 'the file is a bare state dict'}")
    return trained.state, trained.entry


def _merge_loras(state: dict[str, Tensor], options: TextOptions, report: Report) -> list[str]:
    """Merge the LoRA within a training output, then the one of the options, in place."""
    merged = merge_trained_lora(state, options.lora_alpha, report)
    if options.lora is not None:
        report(f"merging {options.lora}")
        merged += merge_lora(state, options.lora, options.lora_alpha)
    return sorted(set(merged))


def _published(settings: dict[str, Any], state: dict[str, Tensor], options: TextOptions) -> tuple[PublishedModel, str]:
    """The model of a diffusers `config.json`, with the temporal design of the weights; and its name."""
    class_name = settings.get("_class_name")
    if class_name not in _FAMILIES:
        raise ValueError(f"the transformer is a {class_name!r}; known are {', '.join(_FAMILIES)}")
    family = _FAMILIES[class_name]
    name = options.model_name
    if name is None and family == "LatteT2V" and any(".matrix_attention." in key for key in state):
        name = HYBRID_TEXT_MODEL
    settings = {**settings, "family": family, "enable_temporal_attentions": options.temporal_attention}
    if options.learned_variance is not None:
        settings["out_channels"] = settings["in_channels"] * (2 if options.learned_variance else 1)
    if name is None:
        return from_text_settings(settings), str(class_name)
    if name not in TEXT_MODELS:
        raise ValueError(f"unknown text model {name!r}; known are {', '.join(TEXT_MODELS)}")
    row = TEXT_MODELS[name]
    design = {key: row[key] for key in _DESIGN if key in row}
    heads = {"num_row_attn_heads": "num_attention_heads", "row_attn_head_dim": "attention_head_dim"}
    renamed = {ours: settings[theirs] for ours, theirs in heads.items() if theirs in settings}
    return from_text_settings({**settings, **renamed, **design}), name
