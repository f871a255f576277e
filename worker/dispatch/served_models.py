"""The models that this worker announces and claims videos for. Only the dispatcher's thread uses them."""

import logging
from collections.abc import Collection, Mapping

from redis import Redis

from jobs.admission.worker_load import ModelState
from jobs.cards import ModelCard, announce, withdraw
from jobs.model_commands import ModelCommand, read_commands
from worker.loading.adapter_watch import AdapterWatch
from worker.loading.checkpoint_watch import CheckpointWatch
from worker.messages import (
    AddModel,
    Inbox,
    LoadModel,
    LoopMessage,
    LoopReport,
    ModelAdded,
    ModelLoading,
    ModelRefused,
    ModelReport,
    PinModels,
    RemoveModel,
    UnloadModel,
)

logger = logging.getLogger(__name__)


class ServedModels:
    """Follows the folders of checkpoints and adapters, the commands of the operator and the reports of the loop.

    Attributes:
        cards: The cards of all models that the worker serves or has served: withdrawn models may have running videos.
        ids: The models that are served now. The list object stays the same.
    """

    def __init__(
        self,
        redis: Redis,
        worker: str,
        ttl_seconds: int,
        cards: Mapping[str, ModelCard],
        loop: Inbox[LoopMessage],
        watch: CheckpointWatch | None = None,
        adapters: AdapterWatch | None = None,
    ) -> None:
        """Without `watch`, the models stay the same. Without `adapters`, they have none."""
        self._redis = redis
        self._worker = worker
        self._ttl_seconds = ttl_seconds
        self._loop = loop
        self._watch = watch
        self._adapters = adapters
        self.cards = dict(cards)
        self.ids = list(cards)
        self._commands: Mapping[str, ModelCommand] = {}
        self._pinned: frozenset[str] = frozenset()
        self._loaded: Collection[str] = frozenset()
        self._loading: str | None = None  # by the last report
        self._load_under_way: str | None = None  # by the last `ModelLoading`

    def beat(self) -> None:
        """Poll the folders, announce the models, and pass on new commands. Raises `RedisError`."""
        if self._watch is not None:
            self._poll(self._watch)
        if self._adapters is not None:
            self._adapters.poll(self.ids)
        for model in self.ids:
            announce(self._redis, self._with_adapters(self.cards[model]), self._worker, self._ttl_seconds)
        self._read_commands()

    def update(self, message: ModelReport) -> None:
        """Apply a message of the loop or the loader."""
        match message:
            case ModelAdded(card):
                logger.info("model added: %s", card.id)
                self.cards[card.id] = card
                if card.id not in self.ids:
                    self.ids.append(card.id)
            case ModelRefused(folder):
                if self._watch is not None:
                    self._watch.refuse(folder)
            case ModelLoading(model, _):
                self._load_under_way = model

    def update_loaded(self, report: LoopReport) -> bool:
        """Apply a report of the loop. Returns whether a state has changed."""
        has_changed = (report.loaded, report.loading) != (self._loaded, self._loading)
        self._loaded, self._loading = report.loaded, report.loading
        return has_changed

    @property
    def states(self) -> dict[str, ModelState]:
        return {model: self._state(model) for model in self.ids}

    @property
    def refused_adapters(self) -> dict[str, str]:
        """Why adapters are not served, by name."""
        return {} if self._adapters is None else self._adapters.served.refused

    def _with_adapters(self, card: ModelCard) -> ModelCard:
        adapters = [] if self._adapters is None else self._adapters.served.of(card.id)
        return card.model_copy(update={"adapters": adapters})

    def _state(self, model: str) -> ModelState:
        if model in (self._loading, self._load_under_way):
            return "loading"
        return "loaded" if model in self._loaded else "unloaded"

    def _poll(self, watch: CheckpointWatch) -> None:
        changes = watch.poll()
        for model in changes.vanished:
            if model in self.ids:
                self.ids.remove(model)
            withdraw(self._redis, model, self._worker)
            self._loop.post(RemoveModel(model))
            logger.info("model withdrawn, its checkpoint folder is gone: %s", model)
        for folder, card in changes.appeared:
            logger.info("checkpoint found: %s in %s", card.id, folder)
            self._loop.post(AddModel(folder, card))

    def _read_commands(self) -> None:
        """Pass on what has changed since the last beat. A command from before the worker's start is not executed."""
        commands = read_commands(self._redis, self.ids)
        for model, command in commands.items():
            if model not in self._commands or command.number == self._commands[model].number:
                continue
            logger.info("model command: %s %s", command.action, model)
            self._loop.post(LoadModel(model) if command.action == "load" else UnloadModel(model))
        self._commands = commands
        pinned = frozenset(model for model, command in commands.items() if command.pinned)
        if pinned != self._pinned:
            self._pinned = pinned
            self._loop.post(PinModels(pinned))
