"""The models of a worker: loaded when they are needed, and kept for as long as memory allows."""

import gc
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic

import torch

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.sampling.samplers import SAMPLERS
from worker.errors import ModelUnavailableError, StartupError
from worker.fingerprint import fingerprint
from worker.folders import find_checkpoints, read_usable
from worker.memory import is_out_of_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResidentModel:
    card: ModelCard
    checkpoint: Checkpoint

    @cached_property
    def fingerprint(self) -> str:
        """Unlike that of any model that computes other numbers."""
        return fingerprint(self.checkpoint)


class ResidentModels(Mapping[str, ResidentModel]):
    """Models by their ids. To look one up is to use it: it is loaded if it is not in memory.

    The least recently used one is unloaded when the loaded ones take more than `max_bytes`, and when the device refuses
    memory for another. All of it is for one thread; only `cards` and the ids are for any.
    """

    def __init__(
        self,
        cards: Mapping[str, ModelCard],
        load: Callable[[str], ResidentModel],
        max_bytes: int | None = None,
    ) -> None:
        """`load` loads the model of an id. One model is always taken, however large."""
        self.cards = dict(cards)
        self._load = load
        self._max_bytes = max_bytes
        self._loaded: dict[str, ResidentModel] = {}  # the most recently used one last
        self._num_bytes: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)

    def __contains__(self, model: object) -> bool:
        return model in self.cards

    @property
    def loaded(self) -> list[str]:
        """The ids of those in memory, the most recently used one last."""
        return list(self._loaded)

    def __getitem__(self, model: str) -> ResidentModel:
        """Raises KeyError for a model that is not here, `ModelUnavailableError` for one that does not load any more."""
        if model not in self.cards:
            raise KeyError(model)
        if model in self._loaded:
            self._loaded[model] = self._loaded.pop(model)
            return self._loaded[model]
        try:
            return self.load(model)
        except StartupError as error:
            logger.error("%s", error.message)
            raise ModelUnavailableError(f"the model {model!r} does not load any more; ask again later") from error

    def load(self, model: str) -> ResidentModel:
        """Load a model, others being unloaded for it as needed. Raises as loading does."""
        self._make_room_for(model)
        started = monotonic()
        while True:
            try:
                self._loaded[model] = self._load(model)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                refused = error.with_traceback(None)
            if not self.unload_one(keep=[]):
                raise refused
        self._seconds[model] = monotonic() - started
        self._num_bytes[model] = _count_bytes(self._loaded[model].checkpoint)
        self._make_room_for(model)
        return self._loaded[model]

    def load_seconds(self, model: str) -> float:
        """How long it takes until the model can be used: 0 when it is in memory, else as long as the last time."""
        return 0.0 if model in self._loaded else self._seconds.get(model, 0.0)

    def unload_one(self, keep: Collection[str]) -> bool:
        """Unload the least recently used model that is not to be kept. Whether there was one."""
        for model in self._loaded:
            if model not in keep:
                logger.info("unloading %s", model)
                del self._loaded[model]
                gc.collect()
                torch.cuda.empty_cache()
                return True
        return False

    def _make_room_for(self, model: str) -> None:
        while self._max_bytes is not None and self._bytes_with(model) > self._max_bytes:
            if not self.unload_one(keep=[model]):
                return

    def _bytes_with(self, model: str) -> int:
        """Of the loaded models and of this one, which counts as nothing before it was ever loaded."""
        return sum(self._num_bytes.get(name, 0) for name in {*self._loaded, model})


def load_models(root: Path, device: torch.device, dtype: torch.dtype, max_bytes: int | None = None) -> ResidentModels:
    """Every checkpoint in `root`, by the id of its card. Each is loaded once, to see that it can be.

    One that cannot be loaded, or whose card promises what it cannot do, is left out, and the log says why. Raises
    `StartupError` when none is left.
    """
    cards = find_checkpoints(root)
    folders = {card.id: folder for folder, card in cards.items()}
    models = ResidentModels(
        {card.id: card for card in cards.values()},
        lambda model: load_model(folders[model], cards[folders[model]], device, dtype),
        max_bytes,
    )

    def read(folder: Path) -> ModelCard:
        try:
            return models.load(cards[folder].id).card
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise StartupError(f"there is no memory for the checkpoint in {folder}: {error}") from error

    models.cards = {card.id: card for card in read_usable(cards, read).values()}
    return models


def _count_bytes(checkpoint: Checkpoint) -> int:
    modules = [checkpoint.transformer, checkpoint.vae.vae]
    if checkpoint.text_encoder is not None:
        modules.append(checkpoint.text_encoder.encoder)
    return sum(tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers()))


def load_model(folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype) -> ResidentModel:
    """The checkpoint in `folder`, checked against its card; raises `StartupError` when it cannot be used."""
    logger.info("loading %s from %s on %s as %s", card.id, folder, device, str(dtype).removeprefix("torch."))
    try:
        checkpoint = load_checkpoint(folder, device=device, dtype=dtype)
    except Exception as error:  # what the libraries raise at a broken file is no short list
        if is_out_of_memory(error):
            raise
        logger.debug("%s", folder, exc_info=error)
        raise StartupError(f"the checkpoint in {folder} cannot be loaded: {type(error).__name__}: {error}") from error
    check_card(card, checkpoint, folder)
    # For the server, which must know what a video costs and cannot look into a checkpoint.
    card = card.model_copy(update={"tokens_per_frame": checkpoint.config.tokens_per_frame})
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
