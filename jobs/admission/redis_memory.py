"""The memory limit of Redis: new videos are refused before it is reached, so that those that exist can still end."""

import time

from redis import Redis
from redis.exceptions import ExecAbortError, OutOfMemoryError

from jobs.errors import OverloadedError

# The rest is for the videos that exist: their events, snapshots and results.
MAX_USED = 0.85
_CHECK_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 60


class MemoryCheck:
    """Whether Redis has memory for new videos, read once a second. May be used from several threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._is_full = False
        self._checked_at = -_CHECK_SECONDS

    def check(self) -> None:
        """:raises OverloadedError: when Redis uses more than `MAX_USED` of its memory limit."""
        now = time.monotonic()
        if now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            memory = self._redis.info("memory")
            self._is_full = bool(memory["maxmemory"]) and memory["used_memory"] > MAX_USED * memory["maxmemory"]
        if self._is_full:
            raise full_job_store()


def is_out_of_memory(error: Exception) -> bool:
    """Whether Redis refused a command, or a whole transaction, because its memory limit is reached."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ExecAbortError) and "OOM" in str(error))


def full_job_store() -> OverloadedError:
    """The error of a request for new videos that Redis has no memory for."""
    return OverloadedError("the job store is full: delete videos, or wait until some expire", _RETRY_AFTER_SECONDS)
