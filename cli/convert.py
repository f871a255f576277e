"""`framedit convert`: a published checkpoint becomes a folder of ours, with a model card to be edited."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.cards import ModelCard, write_card
from models.checkpoint.convert import Conversion, convert_diffusers, convert_published
from models.checkpoint.save import STORED_DTYPES
from models.config import Conditioning, TransformerConfig
from models.sampling.samplers import SAMPLERS
from worker.errors import StartupError

# What the published sampling scripts use.
_GUIDANCE = {Conditioning.NONE: 1.0, Conditioning.CLASS: 7.0, Conditioning.TEXT: 7.5}
_SAMPLER = {Conditioning.NONE: "ddim_spaced", Conditioning.CLASS: "ddim_spaced", Conditioning.TEXT: "ddim"}
_STEPS = 50


@dataclass(frozen=True)
class CardWishes:
    """What of the card was asked for; the rest follows from the model."""

    model: str | None = None
    description: str = ""
    fps: int = 8
    class_names: Path | None = None


@dataclass(frozen=True)
class Source:
    """A published `.pt` with what it does not say of itself, or a diffusers folder with what goes on top of it."""

    path: Path
    model_name: str | None = None
    num_frames: int | None = None
    image_size: int | None = None
    num_classes: int | None = None
    vae: Path | None = None
    transformer: Path | None = None
    lora: Path | None = None
    lora_alpha: float | None = None


def convert(source: Source, output: Path, card: CardWishes, dtype: str, report: Callable[[str], None]) -> Conversion:
    """Make the folder `output`, whole or not at all.

    Raises `StartupError` for options that do not belong to the kind of source, `ValueError` for what does not fit.
    """
    names = _read_class_names(card.class_names)

    def finish(folder: Path, conversion: Conversion) -> None:
        write_card(folder, make_card(output.name, conversion, card, names))

    if source.path.is_dir():
        _refuse_given(source, ("num_frames", "image_size", "num_classes", "vae"), "a diffusers folder says itself")
        return convert_diffusers(
            source.path,
            output,
            transformer_weights=source.transformer,
            model_name=source.model_name,
            lora=source.lora,
            lora_alpha=source.lora_alpha,
            dtype=STORED_DTYPES[dtype],
            report=report,
            finish=finish,
        )
    _refuse_given(source, ("transformer", "lora", "lora_alpha"), "belongs to the conversion of a diffusers folder")
    if source.model_name is None or source.num_frames is None or source.image_size is None or source.vae is None:
        raise StartupError("a published .pt needs --model-name, --frames, --image-size and --vae: it does not say them")
    num_classes = len(names) if names and source.num_classes is None else source.num_classes
    return convert_published(
        source.path,
        output,
        model_name=source.model_name,
        num_frames=source.num_frames,
        image_size=source.image_size,
        num_classes=num_classes,
        vae=source.vae,
        dtype=STORED_DTYPES[dtype],
        report=report,
        finish=finish,
    )


def make_card(folder_name: str, conversion: Conversion, wishes: CardWishes, names: list[str] | None) -> ModelCard:
    """The card of what was converted. Raises `ValueError` where the names are not as many as the classes."""
    config = conversion.config.transformer
    if names is not None and len(names) != config.num_classes:
        raise ValueError(f"{wishes.class_names} names {len(names)} classes, but the model has {config.num_classes}")
    return ModelCard(
        id=wishes.model or folder_name,
        description=wishes.description or conversion.model_name,
        created=int(time.time()),
        conditioning=config.conditioning.value,
        num_frames=config.num_frames,
        max_frames=config.num_frames,
        height=conversion.frame_size,
        width=conversion.frame_size,
        fps=wishes.fps,
        num_inference_steps=_STEPS,
        guidance_scale=_GUIDANCE[config.conditioning],
        sampler=_SAMPLER[config.conditioning],
        samplers=_samplers(config),
        class_names=names or _numbered(config.num_classes),
    )


def _samplers(config: TransformerConfig) -> list[str]:
    """All, but the one that needs the variance of a model that does not learn it."""
    return [sampler for sampler in SAMPLERS if config.learn_sigma or sampler != "ddpm_spaced"]


def _numbered(num_classes: int | None) -> list[str] | None:
    return [f"class-{index}" for index in range(num_classes)] if num_classes else None


def _read_class_names(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _refuse_given(source: Source, names: tuple[str, ...], why: str) -> None:
    given = [name for name in names if getattr(source, name) is not None]
    if given:
        raise StartupError(f"{', '.join(given)} cannot be given here: {why}")
