"""Checkpoint discovery: the checkpoint folders and their model cards. Imports no torch."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from jobs.cards import CARD_FILE, ModelCard, read_card
from jobs.errors import FrameditError
from worker.errors import StartupError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")


def find_checkpoints(root: Path) -> dict[Path, ModelCard]:
    """The checkpoint folders in `root`, or `root` itself if it is one, with their cards, in the order of their names.

    A folder with an unusable card, or with the model id of another folder, is left out.

    Raises:
        StartupError: When no folder is left.
    """
    seen: dict[str, Path] = {}

    def read(folder: Path) -> ModelCard:
        card = read_card(folder)
        first = seen.setdefault(card.id, folder)
        if first != folder:
            raise StartupError(f"{first} and {folder} are both the model {card.id!r}: rename one in its card")
        return card

    return read_usable(_folders(root), read)


def read_usable(folders: Iterable[Path], read: Callable[[Path], Content]) -> dict[Path, Content]:
    """Call `read` for each folder. A folder for which it raises `FrameditError` is left out, and the log says why.

    Raises:
        StartupError: When no folder is left.
    """
    contents: dict[Path, Content] = {}
    faults: list[str] = []
    for folder in folders:
        try:
            contents[folder] = read(folder)
        except FrameditError as error:
            faults.append(error.message)
    if not contents:
        raise StartupError("; ".join(faults))
    for fault in faults:
        logger.error("checkpoint left out: %s", fault)
    return contents


def checkpoint_folders(root: Path) -> list[Path]:
    """The folders in `root` with a card, or `root` itself if it has one."""
    if (root / CARD_FILE).is_file():
        return [root]
    # A name that starts with a dot is an unfinished conversion.
    return sorted(path.parent for path in root.glob(f"*/{CARD_FILE}") if not path.parent.name.startswith("."))


def _folders(root: Path) -> list[Path]:
    folders = checkpoint_folders(root)
    if not folders:
        found = "holds no checkpoint folder (one with a card.json)" if root.is_dir() else "does not exist"
        raise StartupError(
            f"the checkpoints folder {root} {found}: "
            "name another with --checkpoints, or make one with `framedit convert`"
        )
    return folders
