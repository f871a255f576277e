"""Conversion of a published checkpoint to a checkpoint folder with a model card."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from jobs.cards import ModelCard, write_card
from models.checkpoint.save import STORED_DTYPES
from models.config import Conditioning
from models.conversion.class_family import ClassOptions, convert_published
from models.conversion.conversion import Conversion, Output
from models.conversion.text_family import TextOptions, convert_diffusers
from models.sampling.samplers import SAMPLERS
from models.sampling.schedule import PredictionType
from worker.errors import StartupError

Options = TypeVar("Options", ClassOptions, TextOptions)

PREDICTIONS = {
    "epsilon": PredictionType.NOISE,
    "sample": PredictionType.CLEAN,
    "v": PredictionType.VELOCITY,
}


@dataclass(frozen=True)
class CardOptions:
    """Fields of the model card that the user chose; the others follow from the model."""

    model: str | None = None
    description: str = ""
    fps: int = 8
    class_names: Path | None = None


@dataclass(frozen=True)
class Source:
    """A published `.pt` or a diffusers folder, and the options for both. None: not given.

    The fields are those of `ClassOptions` and `TextOptions`.
    """

    path: Path
    vae: Path | None = None
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
    transformer: Path | None = None
    lora: Path | None = None
    lora_alpha: float | None = None
    temporal_decoder: bool | None = None
    temporal_attention: bool | None = None
    mask_feature: bool | None = None


@dataclass(frozen=True)
class _CardDefaults:
    sampler: str
    num_inference_steps: int
    guidance_scale: float


def convert(source: Source, folder: Path, card: CardOptions, dtype: str, report: Callable[[str], None]) -> Conversion:
    """Create the checkpoint folder, complete or not at all.

    Raises `StartupError` for options that do not belong to the kind of source, `ValueError` for what does not fit.
    """
    names = _read_class_names(card.class_names)

    def finish(unfinished: Path, conversion: Conversion) -> None:
        write_card(unfinished, make_card(folder.name, conversion, card, names))

    output = Output(folder, STORED_DTYPES[dtype], report, finish)
    if source.path.is_dir():
        return convert_diffusers(source.path, _options(source, TextOptions, "a diffusers folder"), output)
    if source.vae is None:
        raise StartupError("a published .pt needs --vae, the diffusers folder of its VAE: it does not hold one")
    options = _options(source, ClassOptions, "a published .pt", "vae")
    if names and options.num_classes is None:
        options = ClassOptions(**{**_values(options), "num_classes": len(names)})
    return convert_published(source.path, source.vae, options, output)


def find_source(folder: Path) -> Source:
    """How to convert a folder of published files: a diffusers folder of a text model, or a `.pt` beside its VAE.

    Raises:
        StartupError: When the files do not show it; the message says what to give to `framedit convert`.
    """
    trained = sorted(folder.rglob("*.pt"))
    if len(trained) > 1:
        raise StartupError(f"{folder} holds {len(trained)} .pt files: choose one with --only, or run framedit convert")
    if all((folder / part).is_dir() for part in ("transformer", "vae", "text_encoder", "tokenizer")):
        return Source(folder, transformer=trained[0] if trained else None)
    if not trained:
        raise StartupError(
            f"{folder} cannot be converted: it is not a diffusers folder of a text model (transformer/, vae/, "
            "text_encoder/, tokenizer/) and holds no .pt"
        )
    if not (folder / "vae").is_dir():
        raise StartupError(
            f"{folder} holds no vae/: run framedit convert {trained[0]} with the diffusers folder of its VAE as --vae"
        )
    return Source(trained[0], vae=folder / "vae")


def make_card(folder_name: str, conversion: Conversion, options: CardOptions, names: list[str] | None) -> ModelCard:
    """The card of a conversion. Raises `ValueError` if the names are not as many as the classes."""
    config = conversion.config.transformer
    if names is not None and len(names) != config.num_classes:
        raise ValueError(f"{options.class_names} names {len(names)} classes, but the model has {config.num_classes}")
    defaults = _card_defaults(conversion)
    return ModelCard(
        id=options.model or folder_name,
        description=options.description or conversion.model_name,
        created=int(time.time()),
        conditioning=config.conditioning.value,
        num_frames=config.num_frames,
        max_frames=4 * config.num_frames,
        trained_frames=config.num_frames,
        height=conversion.frame_size,
        width=conversion.frame_size,
        fps=options.fps,
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        sampler=defaults.sampler,
        samplers=list(SAMPLERS),
        class_names=names or _numbered(config.num_classes),
        clean_caption=config.conditioning is Conditioning.TEXT,
    )


def _card_defaults(conversion: Conversion) -> _CardDefaults:
    """The defaults of the published sampling scripts.

    FrameDiT's class script draws 50 steps without guidance. Latte's has 250 steps, and guidance for its class models.
    """
    conditioning = conversion.config.transformer.conditioning
    if conditioning is Conditioning.TEXT:
        return _CardDefaults("ddim", 50, 7.5)
    if conversion.model_name.startswith("Latte"):
        return _CardDefaults("ddpm_spaced", 250, 7.0 if conditioning is Conditioning.CLASS else 1.0)
    return _CardDefaults("ddpm_spaced", 50, 1.0)


def _numbered(num_classes: int | None) -> list[str] | None:
    return [f"class-{index}" for index in range(num_classes)] if num_classes else None


def _read_class_names(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _options(source: Source, kind: type[Options], described: str, *also: str) -> Options:
    """The given options of this kind. Raises `StartupError` for options of the other kind."""
    given = {name: value for name, value in _values(source).items() if value is not None and name != "path"}
    known = {field.name for field in fields(kind)}
    if others := [name for name in given if name not in known and name not in also]:
        raise StartupError(f"{', '.join(others)} cannot be given with {described}")
    return kind(**{name: value for name, value in given.items() if name in known})


def _values(options: Any) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(options)}
