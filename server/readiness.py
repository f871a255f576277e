"""Readiness of the server, checked at most once in two seconds however often clients ask."""

import threading
import time
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import RedisError

from jobs.errors import ArtifactStoreError
from jobs.storage.artifact_store import ArtifactStore

# A check writes a file, and anybody may ask for it.
CACHE_SECONDS = 2.0


class Readiness:
    """The faults of the components that the server needs. May be used from several threads."""

    def __init__(self, redis: Redis, artifacts: ArtifactStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = (redis.ping, artifacts.check_writable)
        self._clock = clock
        self._lock = threading.Lock()
        self._faults: Sequence[str] = ()
        self._checked_at = float("-inf")

    def faults(self) -> Sequence[str]:
        """Return a message for each component that does not work. Concurrent calls share one check."""
        with self._lock:
            if self._clock() - self._checked_at >= CACHE_SECONDS:
                self._faults = self._check()
                self._checked_at = self._clock()
            return self._faults

    def _check(self) -> Sequence[str]:
        faults = []
        for check in self._checks:
            try:
                check()
            except RedisError:
                faults.append("redis does not answer")
            except ArtifactStoreError as error:
                faults.append(error.message)
        return list(dict.fromkeys(faults))
