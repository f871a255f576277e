"""The server's changes: it creates, cancels and deletes videos.

Each model, priority and owner has a queue of RQ. A job carries the id of its video and nothing else.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

from redis import Redis
from redis.client import Pipeline

from jobs.errors import VideoNotFoundError
from jobs.queue.transitions import Transitions
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore

# Locks for the owners of new videos; owners that share one wait for each other without need.
_NUM_LOCKS = 64


class Guard(Protocol):
    """A condition on new records, checked in the transaction that writes them."""

    def watched(self) -> Sequence[str]:
        """Return the keys that the decision depends on: if one changes meanwhile, the transaction is repeated."""

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """Read what the decision needs; commands run at once. Raises an error to refuse the records."""

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """Queue the writes that go with the records."""


class VideoQueue(VideoStore):
    """The records as the server uses them.

    When Redis does not answer, methods raise `RedisError` and it is unknown whether the change was made.
    """

    def __init__(self, redis: Redis, video_ttl_seconds: int | None = None) -> None:
        super().__init__(redis)
        self._transitions = Transitions(redis, video_ttl_seconds)
        self._locks = [threading.Lock() for _ in range(_NUM_LOCKS)]

    def create(self, *records: VideoRecord, guards: Sequence[Guard] = ()) -> None:
        """Write new records and enqueue their jobs, all or none; when this returns they are as durable as Redis is.

        Raises what a guard raises; nothing is written then.
        """

        def write(pipe: Pipeline) -> None:
            for guard in guards:
                guard.check(pipe, records)
            pipe.multi()
            for guard in guards:
                guard.commit(pipe, records)
            for record in records:
                self._transitions.create(record, pipe)

        watched = [key for guard in guards for key in guard.watched()]
        # Of two transactions that watch the same key, one has to be repeated. The lock avoids that within this process:
        # many requests of one owner at once would repeat most of their work.
        with self._locks[hash(records[0].owner) % _NUM_LOCKS] if watched else nullcontext():
            self._redis.transaction(write, *watched)

    def cancel(self, video_id: str) -> VideoRecord:
        """Fail an unfinished video with the code `cancelled`; an ended one stays as it is. Returns the record.

        :raises VideoNotFoundError: when there is no such record.
        """
        self._transitions.fail(self.get(video_id), "cancelled", "the video was cancelled")
        return self.get(video_id)

    def delete(self, video_id: str) -> VideoRecord:
        """Remove a record and its job. A worker that makes the video stops at its next report. Returns the record.

        :raises VideoNotFoundError: when there is no such record.
        """
        record = self.get(video_id)
        if not self._transitions.delete(record):
            raise VideoNotFoundError(video_id)
        return record
