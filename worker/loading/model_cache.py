"""The model cache of a worker: the models in memory, which are kept as long as memory allows."""

import gc
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import monotonic

import torch

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint, TextPlace, load_checkpoint
from worker.device import free_cached_memory, is_out_of_memory
from worker.errors import StartupError
from worker.loading.card_check import check_card
from worker.loading.checkpoint_discovery import find_checkpoints, read_usable
from worker.loading.model_fingerprint import fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    card: ModelCard
    checkpoint: Checkpoint

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the numbers that the model computes (`worker/loading/model_fingerprint.py`)."""
        return fingerprint(self.checkpoint)


class ModelCache:
    """Models by id. Looking up a model in memory marks it as used.

    The least recently used model is unloaded when the loaded models take more than `max_bytes`, and when the device has
    no memory for another one. Not thread-safe: one thread makes all calls.

    Attributes:
        cards: Those of all models, in memory or not.
        pinned: These models stay in memory.
        preparing: The models that another thread uses. Their memory would not become free.
    """

    def __init__(
        self,
        cards: Mapping[str, ModelCard],
        load: Callable[[str], LoadedModel],
        max_bytes: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`load` loads the model with an id. One model is always loaded, however large."""
        self.cards = dict(cards)
        self._load = load
        self._max_bytes = max_bytes
        self._clock = clock
        self._loaded: dict[str, LoadedModel] = {}  # the most recently used last
        self._num_bytes: dict[str, int] = {}
        self._used_at: dict[str, float] = {}
        self._added: dict[str, Callable[[], LoadedModel]] = {}
        self.pinned: Collection[str] = frozenset()
        self.preparing: Collection[str] = frozenset()

    @property
    def loaded(self) -> list[str]:
        """The ids of the models in memory, the most recently used last."""
        return list(self._loaded)

    @property
    def loaded_bytes(self) -> int:
        """Memory that the models in memory take."""
        return sum(self._num_bytes[model] for model in self._loaded)

    def __getitem__(self, model: str) -> LoadedModel:
        """A model in memory. Raises `KeyError` for any other."""
        self._loaded[model] = self._loaded.pop(model)
        self._used_at[model] = self._clock()
        return self._loaded[model]

    def load(self, model: str) -> LoadedModel:
        """Load a model in this thread, and unload others for it as necessary. Raises what the loading raises."""
        self.make_room(model)
        self.put(model, self._read(model))
        self.make_room(model)
        return self._loaded[model]

    def _read(self, model: str) -> LoadedModel:
        while True:
            try:
                return self.reader(model)()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                refused = error.with_traceback(None)
            if not self.unload_one(keep=[]):
                raise refused

    def reader(self, model: str) -> Callable[[], LoadedModel]:
        """The function that reads a model. Any thread may call it."""
        return self._added.get(model) or partial(self._load, model)

    def put(self, model: str, loaded: LoadedModel) -> None:
        """Keep a model that was read, unless it is in memory."""
        self._loaded.setdefault(model, loaded)
        self._used_at[model] = self._clock()
        self._num_bytes[model] = _count_bytes(loaded.checkpoint)

    def add(self, model: str, read: Callable[[], LoadedModel]) -> None:
        """Let a new model be loaded by `read`. `accept` or `remove` follows."""
        self._added[model] = read

    def accept(self, model: str) -> ModelCard:
        """Serve a new model that is in memory, and return the card of its checkpoint."""
        card = self._loaded[model].card
        self.cards = self.cards | {model: card}
        return card

    def remove(self, model: str) -> None:
        """Unload a model and forget it."""
        self.cards = {name: card for name, card in self.cards.items() if name != model}
        self._added.pop(model, None)
        self._drop(model)

    def unload(self, model: str) -> None:
        """Unload a model if it is loaded and not pinned."""
        if model not in self.pinned:
            self._drop(model)

    def unload_idle(self, seconds: float, keep: Collection[str]) -> None:
        """Unload the models outside `keep` that were not used for so long."""
        before = self._clock() - seconds
        for model in self.loaded:
            if model not in keep and self._used_at[model] <= before:
                self.unload(model)

    def unload_one(self, keep: Collection[str]) -> bool:
        """Unload the least recently used model outside `keep` that can be unloaded. Returns whether there was one."""
        for model in self._loaded:
            if model not in {*keep, *self.pinned, *self.preparing}:
                return self._drop(model)
        return False

    def make_room(self, model: str, keep: Collection[str] = ()) -> bool:
        """Unload models outside `keep` until `model` fits into the memory limit. Returns whether it does."""
        while self._max_bytes is not None and self._bytes_with(model) > self._max_bytes:
            if not self.unload_one(keep={*keep, model}):
                return False
        return True

    def trim(self, keep: Collection[str]) -> None:
        """Unload models outside `keep` that exceed the memory limit. The most recently used one stays."""
        for model in self.loaded[-1:]:
            self.make_room(model, keep)

    def can_become_free(self, in_use: Collection[str]) -> bool:
        """Whether one of the models `in_use` can be unloaded later."""
        return any(model in in_use and model not in self.pinned for model in self._loaded)

    def _drop(self, model: str) -> bool:
        if model not in self._loaded:
            return False
        logger.info("model unloaded: %s", model)
        del self._loaded[model]
        gc.collect()
        free_cached_memory()
        return True

    def _bytes_with(self, model: str) -> int:
        """Memory of the loaded models and of `model`, which counts as 0 before its first load."""
        return sum(self._num_bytes.get(name, 0) for name in {*self._loaded, model})


def load_models(
    root: Path,
    device: torch.device,
    dtype: torch.dtype,
    max_bytes: int | None = None,
    *,
    fast: bool = False,
    text_place: TextPlace = "device",
) -> ModelCache:
    """Load every checkpoint in `root` once, to check it, and return the cache of their models.

    A checkpoint that cannot be loaded, or whose card does not fit it, is left out, and the log says why.

    Raises:
        StartupError: When no checkpoint is left, or there is no memory for one of them alone.
    """
    cards = find_checkpoints(root)
    folders = {card.id: folder for folder, card in cards.items()}
    models = ModelCache(
        {card.id: card for card in cards.values()},
        lambda model: load_model(
            folders[model], cards[folders[model]], device, dtype, fast=fast, text_place=text_place
        ),
        max_bytes,
    )

    def read(folder: Path) -> ModelCard:
        try:
            return models.load(cards[folder].id).card
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise StartupError(f"no memory for the checkpoint in {folder}: {error}") from error

    models.cards = {card.id: card for card in read_usable(cards, read).values()}
    return models


def _count_bytes(checkpoint: Checkpoint) -> int:
    """Memory that the weights take on the device of the transformer."""
    device = next(checkpoint.transformer.parameters()).device
    return sum(tensor.nbytes for tensor in checkpoint.weights() if tensor.device == device)


def load_model(
    folder: Path,
    card: ModelCard,
    device: torch.device,
    dtype: torch.dtype,
    *,
    fast: bool = False,
    text_place: TextPlace = "device",
) -> LoadedModel:
    """Load the checkpoint in `folder` and check it against its card. Raises `StartupError` when it is unusable."""
    logger.info("loading %s from %s on %s as %s", card.id, folder, device, str(dtype).removeprefix("torch."))
    try:
        checkpoint = load_checkpoint(folder, device=device, dtype=dtype, fast=fast, text_place=text_place)
    except Exception as error:  # the libraries raise many types for broken files
        if is_out_of_memory(error):
            raise
        logger.debug("%s", folder, exc_info=error)
        raise StartupError(f"the checkpoint in {folder} cannot be loaded: {type(error).__name__}: {error}") from error
    check_card(card, checkpoint, folder)
    if device.type == "cuda":
        # Other threads use the weights in streams of their own, which do not wait for the copies of this one.
        torch.cuda.current_stream(device).synchronize()
    # The server computes the cost of a video from it, and cannot read checkpoints.
    card = card.model_copy(update={"tokens_per_frame": checkpoint.config.tokens_per_frame})
    return LoadedModel(card, checkpoint)
