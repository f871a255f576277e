"""Watches the checkpoints folder of a running worker for folders that appear and vanish. Imports no torch."""

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jobs.cards import CARD_FILE, ModelCard, read_card
from jobs.errors import FrameditError, InvalidCardError
from worker.loading.file_signature import Signature, signature_of

logger = logging.getLogger(__name__)

_PARTS = ("config.json", "model.safetensors", "vae/config.json")
_TEXT_PARTS = ("text_encoder/config.json", "tokenizer")


@dataclass(frozen=True)
class FolderChanges:
    """The difference between two polls: complete new folders with their cards, and the models of vanished ones."""

    appeared: list[tuple[Path, ModelCard]]
    vanished: list[str]


class CheckpointWatch:
    """A new folder counts as complete when its parts exist and no file has changed since the poll before.

    A folder that cannot be used is left out until one of its files changes. For one thread.
    """

    def __init__(self, root: Path, served: Collection[str]) -> None:
        """`served` are the models that the worker has loaded from `root`."""
        self._root = root
        self._models: dict[Path, str] = {}
        self._unfinished: dict[Path, Signature] = {}
        self._refused: dict[Path, Signature] = {}
        self._is_root_away = False
        for folder in self._folders() or ():
            try:
                model = read_card(folder).id
            except InvalidCardError:
                continue
            if model in served and model not in self._models.values():
                self._models[folder] = model

    def poll(self) -> FolderChanges:
        folders = self._folders()
        if folders is None:
            return FolderChanges([], [])
        vanished = [folder for folder in self._models if folder not in folders]
        changes = FolderChanges([], [self._models.pop(folder) for folder in vanished])
        self._unfinished = {folder: files for folder, files in self._unfinished.items() if folder in folders}
        for folder in folders:
            if folder not in self._models and (card := self._complete(folder)) is not None:
                self._models[folder] = card.id
                changes.appeared.append((folder, card))
        return changes

    def refuse(self, folder: Path) -> None:
        """Leave out a folder that could not be loaded, until it changes."""
        self._models.pop(folder, None)
        self._refused[folder] = signature_of(folder.rglob("*"))

    def _folders(self) -> list[Path] | None:
        """The folders with a card. None while the root is away, as an unmounted disk is, or is a checkpoint itself."""
        try:
            names = sorted(entry.name for entry in os.scandir(self._root) if not entry.name.startswith("."))
        except OSError as error:
            if not self._is_root_away:
                logger.warning("checkpoints folder cannot be read, its models are kept: %s", error)
            self._is_root_away = True
            return None
        self._is_root_away = False
        if (self._root / CARD_FILE).is_file():
            return None
        return [self._root / name for name in names if (self._root / name / CARD_FILE).is_file()]

    def _complete(self, folder: Path) -> ModelCard | None:
        """The card of a new folder that can be used, None otherwise."""
        signature = signature_of(folder.rglob("*"))
        if self._refused.get(folder) == signature:
            return None
        if self._unfinished.get(folder) != signature:
            self._unfinished[folder] = signature
            return None
        del self._unfinished[folder]
        try:
            card = read_card(folder)
            self._check(folder, card)
        except FrameditError as error:
            logger.error("checkpoint left out: %s", error.message)
            self._refused[folder] = signature
            return None
        return card

    def _check(self, folder: Path, card: ModelCard) -> None:
        if card.id in self._models.values():
            raise InvalidCardError(f"{folder} is another folder of the model {card.id!r}: rename it in its card")
        parts = (*_PARTS, *_TEXT_PARTS) if card.conditioning == "text" else _PARTS
        if missing := [part for part in parts if not (folder / part).exists()]:
            raise InvalidCardError(f"{folder} lacks {', '.join(missing)}")
