"""Requests for models that are not in memory: the loader reads them, one at a time, when there is room."""

import logging
from collections.abc import Callable, Collection

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint
from worker.device import is_out_of_memory
from worker.loading.model_cache import LoadedModel, ModelCache
from worker.messages import Inbox, LoaderMessage, ModelNotRead, ModelRead, ReadModel

logger = logging.getLogger(__name__)

# Called with None when the model is in memory, otherwise with the error.
OnEnd = Callable[[Exception | None], None]


class ModelLoads:
    """Decides what is loaded, and what is unloaded for it. For the loop's thread. `reading` is the loader's model.

    Models in use are never unloaded for another one. When they leave no room for the model that is next, requests for
    models in memory wait behind it, too: so the models in use become free, and no model waits forever.
    """

    def __init__(self, models: ModelCache, loader: Inbox[LoaderMessage]) -> None:
        self._models = models
        self._loader = loader
        self._waiting: dict[str, list[OnEnd]] = {}  # by model, in the order of the first request
        self.reading: str | None = None
        self._displaced: set[str] = set()  # unloaded for a step of another model
        self._refusal: Exception | None = None  # the device had no memory for the model that is next
        self._is_blocked = False

    @property
    def models(self) -> Collection[str]:
        """The models that are waited for."""
        return self._waiting.keys()

    def request(self, model: str, on_end: OnEnd) -> None:
        """Call `on_end` from `advance` when the model is in memory, or cannot be loaded."""
        self._waiting.setdefault(model, []).append(on_end)

    def reload(self, model: str, on_end: OnEnd) -> None:
        """Load a model in use again, which was unloaded for a step of another one. `on_end` as in `request`.

        It waits until no model in memory is in use, as the memory does not suffice for both. Further calls before
        `on_end` have no effect.
        """
        if model not in self._displaced:
            self._displaced.add(model)
            self.request(model, on_end)

    def receive(self, message: ModelRead | ModelNotRead) -> None:
        """Apply a result of the loader."""
        self.reading = None
        match message:
            case ModelRead(model, card, checkpoint):
                self._models.put(model, LoadedModel(card, checkpoint))
                self._end(model, None)
            case ModelNotRead(model, error) if is_out_of_memory(error):
                logger.warning("no memory to load %s, unloading others: %s", model, error)
                self._refusal = error
            case ModelNotRead(model, error):
                self._end(model, error)

    def advance(self, in_use: Collection[str]) -> None:
        """Start the next load if there is room beside the models `in_use`, and answer requests that need none."""
        if self.reading is None:
            self._models.trim(keep=in_use)
            self._start(in_use)
        if not self._is_blocked:
            for model in [model for model in self._waiting if model in self._models.loaded]:
                self._end(model, None)

    def _start(self, in_use: Collection[str]) -> None:
        self._is_blocked = False
        model = next((model for model in self._waiting if model not in self._models.loaded), None)
        if model is None:
            self._refusal = None
        elif model in self._displaced and any(other in in_use for other in self._models.loaded):
            self._is_blocked = True
        elif self._has_room(model, in_use):
            self._refusal = None
            self.reading = model
            read = self._models.reader(model)
            self._loader.post(ReadModel(model, lambda: _parts(read())))
        elif self._models.can_become_free(in_use):
            self._is_blocked = True
        else:
            error, self._refusal = self._refusal, None
            self._end(model, error)

    def _has_room(self, model: str, in_use: Collection[str]) -> bool:
        if self._refusal is not None:
            return self._models.unload_one(keep=in_use)
        return self._models.make_room(model, keep=in_use) or not self._models.can_become_free(in_use)

    def _end(self, model: str, error: Exception | None) -> None:
        self._displaced.discard(model)
        for on_end in self._waiting.pop(model, []):
            on_end(error)


def _parts(model: LoadedModel) -> tuple[ModelCard, Checkpoint]:
    return model.card, model.checkpoint
