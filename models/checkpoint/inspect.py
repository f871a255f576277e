"""A description of a checkpoint folder from its settings and the headers of its files; no weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from models.checkpoint.directory import TEXT_ENCODER, VAE, WEIGHTS, CheckpointConfig, read_config
from models.checkpoint.keys import check_shapes
from models.checkpoint.load import empty_transformer
from models.checkpoint.reading import reading
from models.checkpoint.text_encoder import read_encoder_config
from models.checkpoint.vae import read_vae_config
from models.config import Conditioning, Layout, TransformerConfig
from models.sampling.schedule import NoiseSchedule, PredictionType
from models.transformer import count_parameters


def describe(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, aligned, one pair per line."""
    column = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{column}}  {value}" for name, value in rows)


def inspect_checkpoint(folder: Path) -> list[tuple[str, str]]:
    """Names and values that describe the checkpoint in `folder`.

    Raises ValueError for a folder that is not a checkpoint, and, by name, for weights that do not fit its config.
    """
    settings = read_config(folder)
    config = settings.transformer
    transformer = empty_transformer(config)
    shapes, dtypes = _read_header(folder / WEIGHTS)
    check_shapes(str(folder / WEIGHTS), shapes, transformer)
    pixels = config.latent_size * 2 ** (len(read_vae_config(folder / VAE).block_out_channels) - 1)
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
        ("predicts", _prediction(settings)),
        ("schedule", _schedule(settings.schedule)),
        ("vae", _vae(folder, settings)),
        *([("text encoder", _text_encoder(folder, settings))] if settings.max_tokens is not None else []),
        *([("converted from", _provenance(settings.provenance))] if settings.provenance else []),
        ("files", f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()):,} bytes"),
    ]


_OTHER_LAYOUTS = {
    Layout.JOINT: "joint attention over all tokens of all frames (DiT3D)",
    Layout.SPATIAL: "attention within frames alone (LatteT2V without temporal attention)",
}
_PREDICTIONS = {
    PredictionType.NOISE: "noise",
    PredictionType.CLEAN: "clean latents",
    PredictionType.VELOCITY: "velocity",
}


def _prediction(settings: CheckpointConfig) -> str:
    prediction = _PREDICTIONS[settings.schedule.prediction_type]
    return f"{prediction} and variance" if settings.transformer.learn_sigma else prediction


def _schedule(schedule: NoiseSchedule) -> str:
    betas = f"{schedule.beta_schedule} betas {schedule.beta_start:g} to {schedule.beta_end:g}"
    also = {
        "timestep_spacing": schedule.timestep_spacing,
        "steps_offset": schedule.steps_offset,
        "rescale_betas_zero_snr": schedule.rescale_betas_zero_snr,
        "variance_type": schedule.variance_type,
    }
    others = [f"{name} {value}" for name, value in also.items() if value]
    return ", ".join([f"{schedule.num_train_timesteps} steps", betas, *others])


def _provenance(provenance: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in provenance.items() if value and value != "0")


def _design(config: TransformerConfig) -> str:
    if config.layout is not Layout.ALTERNATING:
        return _OTHER_LAYOUTS[config.layout]
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
    return f"{read_vae_config(folder / VAE).class_name}, scaling factor {settings.scaling_factor:g}"


def _text_encoder(folder: Path, settings: CheckpointConfig) -> str:
    encoder = read_encoder_config(folder / TEXT_ENCODER)
    return f"T5, {encoder.num_layers} layers, width {encoder.d_model}, at most {settings.max_tokens} tokens"


def _read_header(path: Path) -> tuple[dict[str, list[int]], set[str]]:
    """Shapes by name, and the dtypes in use."""
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}")
    with reading(path), safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return (
            {name: part.get_shape() for name, part in slices.items()},
            {part.get_dtype() for part in slices.values()},
        )
