"""Watches the adapters folder of a running worker: which adapters it can serve, and why not the others."""

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from jobs.adapter_cards import AdapterCard, read_adapter_card
from jobs.cards import read_card
from jobs.errors import FrameditError, InvalidCardError
from models.adapters.read import base_model_of, read_adapter
from models.checkpoint.directory import read_config
from models.config import TransformerConfig
from worker.loading.checkpoint_discovery import checkpoint_folders
from worker.loading.file_signature import Signature, signature_of

logger = logging.getLogger(__name__)

# Reading adapters must not keep the dispatcher from renewing its leases.
_MAX_POLL_SECONDS = 1.0
_FILES = ("adapter_model.safetensors", "adapter_config.json", "card.json")


@dataclass
class ServedAdapters:
    """The adapters that can be served, and why not the others, by name."""

    cards: dict[str, AdapterCard] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def of(self, model: str) -> list[AdapterCard]:
        """Those of one model, in the order of their names."""
        return [card for _, card in sorted(self.cards.items()) if card.model == model]


class AdapterWatch:
    """Reads each new or changed folder, once it is the same in two polls, to check it whole.

    For one thread.
    """

    def __init__(self, root: Path, checkpoints: Path, max_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self._root = root
        self._checkpoints = checkpoints
        self._max_bytes = max_bytes
        self._clock = clock
        self._read: dict[str, tuple[Signature, Collection[str]]] = {}
        self._last_seen: dict[str, Signature] = {}
        self.served = ServedAdapters()

    def poll(self, models: Collection[str], is_start: bool = False) -> None:
        """Update `served` for the served `models`. At the start, folders count as complete at once."""
        folders = self._folders()
        for name in set(self._read) - set(folders):
            logger.info("adapter removed: %s", name)
            self._forget(name)
        key = frozenset(models)
        deadline = self._clock() + _MAX_POLL_SECONDS
        for name, signature in folders.items():
            if self._read.get(name) == (signature, key):
                continue
            if not is_start and self._last_seen.get(name) != signature:
                continue
            if not is_start and self._clock() > deadline:
                break
            self._check(name, key)
            self._read[name] = (signature, key)
        self._last_seen = folders

    def _folders(self) -> dict[str, Signature]:
        try:
            entries = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())
        except OSError:  # without the folder there are no adapters
            return {}
        # A name that starts with a dot is an unfinished copy.
        return {
            name: signature_of(self._root / name / file for file in _FILES)
            for name in entries
            if not name.startswith(".")
        }

    def _check(self, name: str, models: Collection[str]) -> None:
        is_known = name in self._read
        self._forget(name)
        folder = self._root / name
        try:
            card = read_adapter_card(folder, _default_model(folder, models))
            config = self._base_config(card.model, models)
            adapter = read_adapter(folder, config, self._max_bytes)
        except (FrameditError, ValueError) as error:
            logger.warning("adapter refused: %s: %s", name, error)
            self.served.refused[name] = str(error).replace(str(folder), name)  # clients see no paths of the server
        else:
            self.served.cards[name] = card
            state = "changed" if is_known else "added"
            logger.info("adapter %s: %s of %s, rank %d", state, name, card.model, adapter.rank)

    def _forget(self, name: str) -> None:
        self._read.pop(name, None)
        self.served.cards.pop(name, None)
        self.served.refused.pop(name, None)

    def _base_config(self, model: str, models: Collection[str]) -> TransformerConfig:
        for folder in checkpoint_folders(self._checkpoints) if model in models else ():
            try:
                if read_card(folder).id == model:
                    return read_config(folder).transformer
            except InvalidCardError:
                continue
        names = ", ".join(sorted(models)) or "none"
        raise InvalidCardError(f"its model {model!r} is not served here: the models are {names}")


def _default_model(folder: Path, models: Collection[str]) -> str | None:
    """Of an adapter without a card: the model that peft's settings name, or else the only one that is served."""
    named = base_model_of(folder)
    if named is not None and (named in models or len(models) != 1):
        return named
    return next(iter(models)) if len(models) == 1 else None
