"""When to take a snapshot of each request, so that another worker can resume it."""

import logging
import time
from collections.abc import Callable

from worker.engine.snapshot import Snapshot
from worker.loading.model_cache import LoadedModel

logger = logging.getLogger(__name__)

_FORMAT = "framedit-snapshot-1"
# While the worker drains: other workers will resume its requests soon.
_DRAIN_INTERVAL_SECONDS = 1.0


class SnapshotSchedule:
    """Takes a snapshot of each request at a fixed interval, within a limit for the bytes of all requests.

    The bytes start with the model's fingerprint, so that only the same model on the same kind of device resumes them.
    """

    def __init__(self, interval_seconds: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """With an interval of 0 no snapshots are taken."""
        self._interval_seconds = interval_seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._last: dict[str, float] = {}  # by request: when it was admitted, or its last snapshot was taken
        self._num_bytes: dict[str, int] = {}

    def take(
        self, request_id: str, model: LoadedModel, snapshot: Callable[[], Snapshot], is_draining: bool = False
    ) -> bytes | None:
        """The snapshot to store now, None when none is due. `snapshot` is called only when one is due."""
        if not self._interval_seconds:
            return None
        now = self._clock()
        interval = min(self._interval_seconds, _DRAIN_INTERVAL_SECONDS) if is_draining else self._interval_seconds
        if now - self._last.setdefault(request_id, now) < interval:
            return None
        self._last[request_id] = now
        content = _header(model) + snapshot().to_bytes()
        others = sum(size for other, size in self._num_bytes.items() if other != request_id)
        if others + len(content) > self._max_bytes:
            return None
        self._num_bytes[request_id] = len(content)
        return content

    def open(self, content: bytes, model: LoadedModel) -> Snapshot | None:
        """Decode a stored snapshot; None when it is of another model or unreadable."""
        header = _header(model)
        if not content.startswith(header):
            return None
        try:
            return Snapshot.from_bytes(content[len(header) :])
        except ValueError as error:
            logger.warning("stored snapshot is unreadable, ignoring it: %s", error)
            return None

    def forget(self, request_id: str) -> None:
        """Free what is kept about a request. Call it once the request has left the engine."""
        self._last.pop(request_id, None)
        self._num_bytes.pop(request_id, None)


def _header(model: LoadedModel) -> bytes:
    return f"{_FORMAT} {model.fingerprint}\n".encode()
