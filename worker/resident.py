"""Models that stay loaded for as long as the worker lives."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.sampling.samplers import SAMPLERS
from worker.errors import StartupError
from worker.folders import find_checkpoints

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResidentModel:
    card: ModelCard
    checkpoint: Checkpoint


def load_models(root: Path, device: torch.device, dtype: torch.dtype) -> dict[str, ResidentModel]:
    """Every checkpoint in `root`, by the id of its card.

    Raises `StartupError` for a checkpoint that cannot be loaded or whose card promises what it cannot do.
    """
    return {card.id: load_model(folder, card, device, dtype) for folder, card in find_checkpoints(root).items()}


def load_model(folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype) -> ResidentModel:
    """The checkpoint in `folder`, checked against its card; raises `StartupError` as `load_models` does."""
    logger.info("loading %s from %s on %s as %s", card.id, folder, device, str(dtype).removeprefix("torch."))
    try:
        checkpoint = load_checkpoint(folder, device=device, dtype=dtype)
    except (ValueError, OSError, SafetensorError) as error:
        raise StartupError(f"the checkpoint in {folder} cannot be loaded: {error}") from error
    check_card(card, checkpoint, folder)
    return ResidentModel(card, checkpoint)


def check_card(card: ModelCard, checkpoint: Checkpoint, folder: Path) -> None:
    """Raise `StartupError`, naming every contradiction, unless the checkpoint can do all that its card promises."""
    config = checkpoint.config
    pixels = checkpoint.frame_size
    classes = len(card.class_names or ()) or None
    unknown = sorted(set(card.samplers) - set(SAMPLERS))
    rules = (
        (card.conditioning == config.conditioning, f"conditioning {card.conditioning!r}, not {config.conditioning!s}"),
        (classes == config.num_classes, f"{classes} class names, not {config.num_classes}"),
        (card.max_frames <= config.num_frames, f"max_frames {card.max_frames}, more than {config.num_frames}"),
        ((card.height, card.width) == (pixels, pixels), f"size {card.size}, not {pixels}x{pixels}"),
        (not unknown, f"samplers {', '.join(unknown)}, which are not among {', '.join(SAMPLERS)}"),
    )
    wrong = [message for holds, message in rules if not holds]
    if wrong:
        raise StartupError(f"the card.json in {folder} does not fit its checkpoint: it says {'; '.join(wrong)}")
