"""Which checkpoint folders there are, and their cards; free of torch, so that any process can look."""

from pathlib import Path

from jobs.cards import CARD_FILE, ModelCard, read_card
from worker.errors import StartupError


def find_checkpoints(root: Path) -> dict[Path, ModelCard]:
    """The checkpoint folders in `root`, or `root` itself when it is one, each with its card, by name.

    Raises `StartupError` when there are none, or two say that they are the same model, `InvalidCardError` for a card
    that cannot be used.
    """
    folders = [root] if (root / CARD_FILE).is_file() else sorted(path.parent for path in root.glob(f"*/{CARD_FILE}"))
    if not folders:
        found = "holds no checkpoint folder (one with a card.json)" if root.is_dir() else "does not exist"
        raise StartupError(
            f"the checkpoints folder {root} {found}: "
            "name another with --checkpoints, or make one with `framedit convert`"
        )
    cards = {folder: read_card(folder) for folder in folders}
    seen: dict[str, Path] = {}
    for folder, card in cards.items():
        if card.id in seen:
            raise StartupError(f"{seen[card.id]} and {folder} are both the model {card.id!r}: rename one in its card")
        seen[card.id] = folder
    return cards
