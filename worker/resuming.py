"""What is kept of a request on its way, so that a worker that takes it over need not begin anew."""

import logging
import time
from collections.abc import Callable

from worker.resident import ResidentModel
from worker.snapshot import Snapshot

logger = logging.getLogger(__name__)

_FORMAT = "framedit-snapshot-1"
# Of a worker that is about to end, and whose requests others will take over.
_HASTY_SECONDS = 1.0


class Resuming:
    """Decides when a snapshot is taken: every so many seconds of each request, and of all together no more bytes than
    allowed. Bytes are good for the same model on the same kind of device alone, and are nothing to all others."""

    def __init__(self, every_seconds: float, max_bytes: int) -> None:
        """With 0 seconds none is taken."""
        self.every_seconds = every_seconds
        self._max_bytes = max_bytes
        self._last: dict[str, float] = {}  # when a request came, or was last kept
        self._num_bytes: dict[str, int] = {}

    def take(
        self, request_id: str, model: ResidentModel, snapshot: Callable[[], Snapshot], is_hasty: bool = False
    ) -> bytes | None:
        """What is to be kept of a request now, None when nothing is due. `snapshot` is asked only when it is needed."""
        if not self.every_seconds:
            return None
        now = time.monotonic()
        every = min(self.every_seconds, _HASTY_SECONDS) if is_hasty else self.every_seconds
        if now - self._last.setdefault(request_id, now) < every:
            return None
        self._last[request_id] = now
        content = _header(model) + snapshot().to_bytes()
        others = sum(size for other, size in self._num_bytes.items() if other != request_id)
        if others + len(content) > self._max_bytes:
            return None
        self._num_bytes[request_id] = len(content)
        return content

    def open(self, content: bytes, model: ResidentModel) -> Snapshot | None:
        """The snapshot that was kept, None when it is of no use here."""
        header = _header(model)
        if not content.startswith(header):
            return None
        try:
            return Snapshot.from_bytes(content[len(header) :])
        except ValueError as error:
            logger.warning("a snapshot cannot be read: %s", error)
            return None

    def forget(self, request_id: str) -> None:
        """To be called once a request has left."""
        self._last.pop(request_id, None)
        self._num_bytes.pop(request_id, None)


def _header(model: ResidentModel) -> bytes:
    return f"{_FORMAT} {model.fingerprint}\n".encode()
