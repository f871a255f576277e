"""Changes of the models on the loop thread: added, removed, loaded, unloaded, pinned, and unloaded when idle."""

import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from jobs.cards import ModelCard
from jobs.errors import FrameditError
from worker.loading.model_cache import LoadedModel, ModelCache
from worker.loading.model_loads import ModelLoads
from worker.messages import (
    AddModel,
    DispatcherMessage,
    Inbox,
    LoadModel,
    ModelAdded,
    ModelMessage,
    ModelRefused,
    PinModels,
    RemoveModel,
    UnloadModel,
)

logger = logging.getLogger(__name__)


class ModelChanges:
    """Keeps a change until no active request uses its model, and an earlier load of it has ended."""

    def __init__(
        self,
        models: ModelCache,
        loads: ModelLoads,
        open_checkpoint: Callable[[Path, ModelCard], LoadedModel],
        dispatcher: Inbox[DispatcherMessage],
        idle_seconds: float | None,
    ) -> None:
        """`idle_seconds`: unload a model that no request has used for so long. None: never."""
        self._models = models
        self._loads = loads
        self._open = open_checkpoint
        self._dispatcher = dispatcher
        self._idle_seconds = idle_seconds
        self._waiting: list[ModelMessage] = []

    def receive(self, message: ModelMessage | PinModels) -> None:
        if isinstance(message, PinModels):
            self._models.pinned = message.models
            self._waiting += [LoadModel(model) for model in sorted(message.models)]
        else:
            self._waiting.append(message)

    def apply(self, in_use: Collection[str]) -> None:
        """Make the changes of the models that are not in `in_use`. A change never overtakes another of its model."""
        blocked = set(in_use)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            if message.model in blocked or message.model in self._loads.models:
                blocked.add(message.model)
                self._waiting.append(message)
            else:
                self._apply(message)
        if self._idle_seconds is not None:
            self._models.unload_idle(self._idle_seconds, keep=in_use)

    def _apply(self, message: ModelMessage) -> None:
        match message:
            case AddModel(folder, card):
                self._add(folder, card)
            case RemoveModel(model):
                self._models.remove(model)
            case LoadModel(model):
                self._load(model)
            case UnloadModel(model):
                self._models.unload(model)

    def _add(self, folder: Path, card: ModelCard) -> None:
        self._models.add(card.id, lambda: self._open(folder, card))
        self._loads.request(card.id, partial(self._end_add, folder, card.id))

    def _end_add(self, folder: Path, model: str, error: Exception | None) -> None:
        if error is None:
            self._dispatcher.post(ModelAdded(self._models.accept(model)))
            return
        reason = error.message if isinstance(error, FrameditError) else repr(error)
        logger.error("checkpoint left out: %s", reason)
        self._models.remove(model)
        self._dispatcher.post(ModelRefused(folder))

    def _load(self, model: str) -> None:
        if model in self._models.cards:
            self._loads.request(model, partial(self._end_load, model))

    def _end_load(self, model: str, error: Exception | None) -> None:
        if error is None:
            self._models[model]  # marked as used
        else:
            logger.error("model not loaded: %s: %s", model, error)
