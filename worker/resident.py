"""Models that stay loaded for as long as the worker lives."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.sampling.samplers import SAMPLERS
from worker.errors import StartupError
from worker.folders import find_checkpoints, read_usable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResidentModel:
    card: ModelCard
    checkpoint: Checkpoint


def load_models(root: Path, device: torch.device, dtype: torch.dtype) -> dict[str, ResidentModel]:
    """Every checkpoint in `root`, by the id of its card.

    One that cannot be loaded, or whose card promises what it cannot do, is left out, and the log says why. Raises
    `StartupError` when none is left.
    """
    cards = find_checkpoints(root)
    models = read_usable(cards, lambda folder: load_model(folder, cards[folder], device, dtype))
    return {model.card.id: model for model in models.values()}


def load_model(folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype) -> ResidentModel:
    """The checkpoint in `folder`, checked against its card; raises `StartupError` when it cannot be used."""
    logger.info("loading %s from %s on %s as %s", card.id, folder, device, str(dtype).removeprefix("torch."))
    try:
        checkpoint = load_checkpoint(folder, device=device, dtype=dtype)
    except Exception as error:  # what the libraries raise at a broken file is no short list
        logger.debug("%s", folder, exc_info=error)
        raise StartupError(f"the checkpoint in {folder} cannot be loaded: {type(error).__name__}: {error}") from error
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
