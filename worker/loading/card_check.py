"""The check of a model card against its checkpoint."""

from pathlib import Path

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint
from models.sampling.samplers import SAMPLERS
from worker.errors import StartupError


def check_card(card: ModelCard, checkpoint: Checkpoint, folder: Path) -> None:
    """Raise `StartupError` with every contradiction, unless the checkpoint supports all that its card states."""
    config = checkpoint.config
    pixels = checkpoint.frame_size
    classes = len(card.class_names or ()) or None
    unknown = sorted(set(card.samplers) - set(SAMPLERS))
    trained = card.frames_per_row
    rules = (
        (card.conditioning == config.conditioning, f"conditioning {card.conditioning!r}, not {config.conditioning!s}"),
        (classes == config.num_classes, f"{classes} class names, not {config.num_classes}"),
        (trained <= config.num_frames, f"{trained} trained frames, more than {config.num_frames}"),
        ((card.height, card.width) == (pixels, pixels), f"size {card.size}, not {pixels}x{pixels}"),
        (not unknown, f"samplers {', '.join(unknown)}, which are not among {', '.join(SAMPLERS)}"),
    )
    wrong = [message for holds, message in rules if not holds]
    if wrong:
        raise StartupError(f"the card.json in {folder} does not fit its checkpoint: it states {'; '.join(wrong)}")
