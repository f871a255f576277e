"""Changes of the models on the loop thread: added, removed, loaded, unloaded, pinned, and unloaded when idle."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from jobs.cards import ModelCard
from jobs.errors import FrameditError
from worker.loading.model_cache import LoadedModel, ModelCache
from worker.messages import (
    AddModel,
    DispatcherMessage,
    Inbox,
    LoadModel,
    ModelAdded,
    ModelLoading,
    ModelMessage,
    ModelRefused,
    PinModels,
    RemoveModel,
    UnloadModel,
)

logger = logging.getLogger(__name__)


class ModelChanges:
    """Keeps a change until no active request uses its model."""

    def __init__(
        self,
        models: ModelCache,
        open_checkpoint: Callable[[Path, ModelCard], LoadedModel],
        dispatcher: Inbox[DispatcherMessage],
        idle_seconds: float | None,
    ) -> None:
        """`idle_seconds`: unload a model that no request has used for so long. None: never."""
        self._models = models
        self._open = open_checkpoint
        self._dispatcher = dispatcher
        self._idle_seconds = idle_seconds
        self._waiting: list[ModelMessage] = []
        models.on_load = lambda model: dispatcher.post(ModelLoading(model))

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
            if message.model in blocked:
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
        try:
            added = self._models.add(card, lambda: self._open(folder, card))
        except Exception as error:
            reason = error.message if isinstance(error, FrameditError) else repr(error)
            logger.error("checkpoint left out: %s", reason)
            self._dispatcher.post(ModelRefused(folder))
        else:
            self._dispatcher.post(ModelAdded(added))

    def _load(self, model: str) -> None:
        if model not in self._models:
            return
        try:
            self._models[model]
        except Exception as error:
            logger.error("model not loaded: %s: %s", model, error)
