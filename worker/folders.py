"""Which checkpoint folders there are, and their cards; free of torch, so that any process can look."""

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
    """The checkpoint folders in `root`, or `root` itself when it is one, each with its card, by name.

    One whose card cannot be used, or is of a model that another has already, is left out as `read_usable` does. Raises
    `StartupError` when none is left.
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
    """What `read` makes of each folder. One for which it raises `FrameditError` does not take the others down: it is
    left out, and the log says why. Raises `StartupError` when none is left.
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
        logger.error("left out: %s", fault)
    return contents


def _folders(root: Path) -> list[Path]:
    if (root / CARD_FILE).is_file():
        return [root]
    # A name with a dot in front is a conversion that is still going on, or broke off.
    folders = sorted(path.parent for path in root.glob(f"*/{CARD_FILE}") if not path.parent.name.startswith("."))
    if not folders:
        found = "holds no checkpoint folder (one with a card.json)" if root.is_dir() else "does not exist"
        raise StartupError(
            f"the checkpoints folder {root} {found}: "
            "name another with --checkpoints, or make one with `framedit convert`"
        )
    return folders
