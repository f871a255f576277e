"""The adapter cache of a worker: the adapters that requests have named lately, on the device."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch

from jobs.videos.record import AdapterUse
from models.adapters.adapter import Adapter, ScaledAdapter
from models.adapters.read import files_changed_at, read_adapter
from worker.errors import AdapterUnavailableError
from worker.loading.model_cache import LoadedModel

logger = logging.getLogger(__name__)


class AdapterCache:
    """Adapters by name and model. A file that has changed is read again. For one thread."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """The least recently used adapters go when all together take more than `max_bytes`. One may always stay."""
        self._root = root
        self._max_bytes = max_bytes
        self._adapters: OrderedDict[tuple[object, ...], Adapter] = OrderedDict()

    def load(self, uses: Sequence[AdapterUse], model: LoadedModel) -> tuple[ScaledAdapter, ...]:
        """The adapters of a request, for a pass of `model`.

        Raises:
            AdapterUnavailableError: When one is not there, or does not fit the model.
        """
        return tuple(ScaledAdapter(self._load(use.name, model), use.scale) for use in uses)

    @property
    def num_bytes(self) -> int:
        """Memory that the adapters take. Those of active requests, which have left the cache, take more."""
        return sum(adapter.num_bytes for adapter in self._adapters.values())

    def _load(self, name: str, model: LoadedModel) -> Adapter:
        weight = next(model.checkpoint.transformer.parameters())
        folder = self._root / name
        try:
            key = (name, model.card.id, weight.device, weight.dtype, model.checkpoint.config, files_changed_at(folder))
            if key not in self._adapters:
                self._add(key, read_adapter(folder, model.checkpoint.config, self._max_bytes), weight)
        except ValueError as error:
            logger.warning("adapter unavailable: %s: %s", name, error)
            raise AdapterUnavailableError(name, model.card.id) from error
        self._adapters.move_to_end(key)
        return self._adapters[key]

    def _add(self, key: tuple[object, ...], adapter: Adapter, like: torch.Tensor) -> None:
        for outdated in [other for other in self._adapters if other[:-1] == key[:-1]]:
            del self._adapters[outdated]
        self._adapters[key] = adapter.to(like.device, like.dtype)
        while len(self._adapters) > 1 and self.num_bytes > self._max_bytes:
            self._adapters.popitem(last=False)
