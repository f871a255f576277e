"""Published class-conditional and unconditional training outputs (`.pt`) -> checkpoint folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint.directory import CheckpointConfig
from models.config import Conditioning
from models.conversion.conversion import Conversion, Output, Parts, Report, read_vae, write_checkpoint
from models.conversion.weights import read_training_output
from models.registry import published_model
from models.sampling.schedule import NoiseSchedule, PredictionType, VarianceType

# The published class scripts multiply latents by this number, whatever the VAE's config says.
SCALING_FACTOR = 0.18215
# The published class script samples with the moving average where there is one.
WEIGHT_ENTRIES = ("ema", "model")


@dataclass(frozen=True)
class ClassOptions:
    """The caller's knowledge of a training output. None: take it from the file's own arguments, or else the default.

    Attributes:
        model_name: as in `FrameDiTH-XL/128-512/2-softmax_u-concat`.
        num_frames, image_size: of training; the size in pixels.
        num_classes: 0 for an unconditional model, the default.
        weights: "ema" or "model"; by default "ema" where the file holds it, as published.
        prediction: what the model predicts; noise by default.
        learned_variance: whether the model predicts a variance, too; yes by default.
        small_variance: without a learned variance, ancestral sampling adds the smaller bound; no by default.
        vae_scale: factor that training multiplied latents by; 0.18215 by default.
        attention_mode: of training: "math" (the default), "flash" or "xformers".
    """

    model_name: str | None = None
    num_frames: int | None = None
    image_size: int | None = None
    num_classes: int | None = None
    weights: str | None = None
    prediction: PredictionType | None = None
    learned_variance: bool | None = None
    small_variance: bool | None = None
    vae_scale: float | None = None
    attention_mode: str | None = None


def convert_published(source: Path, vae: Path, options: ClassOptions, output: Output) -> Conversion:
    """Make a checkpoint folder of a published class-conditional or unconditional training output.

    Args:
        source: a training output (`ema` or `model` inside) or a bare state dict; .pt or .safetensors.
        vae: a diffusers folder with the VAE of training.
        options: the settings that the file does not hold.
        output: the folder to create.

    Raises:
        ValueError: for settings that are missing or do not fit; keys are named.
        FileExistsError: if the output folder holds something.
    """
    output.report(f"reading {source}")
    entries = WEIGHT_ENTRIES if options.weights is None else (options.weights,)
    trained = read_training_output(source, entries)
    settings = _Settings.of(options, trained.arguments, output.report)
    published = published_model(
        settings.model_name,
        num_frames=settings.num_frames,
        image_size=settings.image_size,
        num_classes=settings.num_classes,
        learn_sigma=settings.learn_sigma,
        attention_mode=settings.attention_mode,
    )
    if published.config.conditioning is Conditioning.TEXT:
        raise ValueError(
            f"{settings.model_name} is a text model: convert a diffusers folder, with this file for its transformer"
        )
    output.report(f"weights: {trained.entry or 'the file is a bare state dict'}")
    scale = SCALING_FACTOR if options.vae_scale is None else options.vae_scale
    decoder = read_vae(vae, scale)
    _check_size(settings, published.config.latent_size * decoder.pixels_per_latent, decoder.pixels_per_latent)
    if decoder.vae.config.scaling_factor != scale:
        output.report(f"latents are scaled by {scale:g}; the VAE's config says {decoder.vae.config.scaling_factor:g}")
    config = CheckpointConfig(
        published.config,
        settings.schedule,
        scale,
        provenance={"model": settings.model_name, "weights": trained.entry, "vae": vae.name},
    )
    return write_checkpoint(Parts(settings.model_name, published, config, trained.state, decoder), output)


@dataclass(frozen=True)
class _Settings:
    """The settings of training, from the options, the file's arguments and the published defaults."""

    model_name: str
    num_frames: int
    image_size: int
    num_classes: int | None
    learn_sigma: bool
    attention_mode: str
    schedule: NoiseSchedule

    @staticmethod
    def of(options: ClassOptions, arguments: dict[str, Any], report: Report) -> _Settings:
        given = {
            "model": options.model_name,
            "num_frames": options.num_frames,
            "image_size": options.image_size,
            "num_classes": options.num_classes,
            "learn_sigma": options.learned_variance,
            "predict_xstart": None if options.prediction is None else options.prediction is PredictionType.CLEAN,
            "sigma_small": options.small_variance,
            "attention_mode": options.attention_mode,
        }
        # `extras` 1 is unconditional, however many classes the dataset has.
        recorded = {**arguments, "num_classes": 0} if arguments.get("extras") == 1 else arguments
        if recorded.get("extras", 1) not in (1, 2):
            raise ValueError(
                f"the file was trained with extras {recorded['extras']}: "
                "supported are 1 (unconditional) and 2 (class-conditional)"
            )
        read = {name: recorded[name] for name in given if given[name] is None and recorded.get(name) is not None}
        if read:
            report("from the file's arguments: " + ", ".join(f"{name} {value}" for name, value in read.items()))
        values = {name: value for name, value in given.items() if value is not None} | read
        if missing := [name for name in ("model", "num_frames", "image_size") if name not in values]:
            raise ValueError(f"the file does not say {', '.join(missing)}: give it as an option")
        learn_sigma = bool(values.get("learn_sigma", True))
        fixed = VarianceType.SMALL if values.get("sigma_small") else VarianceType.LARGE
        clean = PredictionType.CLEAN if values.get("predict_xstart") else PredictionType.NOISE
        return _Settings(
            model_name=str(values["model"]),
            num_frames=int(values["num_frames"]),
            image_size=int(values["image_size"]),
            num_classes=int(values["num_classes"]) if values.get("num_classes") else None,
            learn_sigma=learn_sigma,
            attention_mode=str(values.get("attention_mode", "math")),
            schedule=NoiseSchedule(
                prediction_type=options.prediction or clean, variance_type=None if learn_sigma else fixed
            ),
        )


def _check_size(settings: _Settings, frame_size: int, pixels_per_latent: int) -> None:
    if frame_size != settings.image_size:
        raise ValueError(
            f"image_size is {settings.image_size}: with this VAE ({pixels_per_latent} pixels to a latent position) "
            f"{settings.model_name} makes {frame_size}"
        )
