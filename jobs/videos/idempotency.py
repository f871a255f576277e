"""`Idempotency-Key`: a request that is repeated creates no second video.

The videos of a key are stored in the transaction that creates them. So no crash comes between the two, and of two
concurrent requests the second finds the videos of the first.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline

from jobs import redis_keys
from jobs.errors import IdempotencyConflictError
from jobs.videos.record import VideoRecord

KEPT_SECONDS = 24 * 3600


class AlreadyCreatedError(Exception):
    """The videos of this key exist already; not a failure."""

    def __init__(self, video_ids: Sequence[str]) -> None:
        super().__init__(", ".join(video_ids))
        self.video_ids = video_ids


@dataclass(frozen=True)
class OnceGuard:
    """A key, its owner and its request, as a `Guard` of `VideoQueue.create`."""

    owner: str | None
    key: str
    fingerprint: str

    def find(self, redis: Redis) -> Sequence[str] | None:
        """Return the ids of the videos that were created with this key, None when it is new.

        :raises IdempotencyConflictError: when the key was used for another request.
        """
        raw = cast(bytes | None, redis.get(self._redis_key()))
        if raw is None:
            return None
        kept: dict[str, Any] = json.loads(raw)
        if kept["fingerprint"] != self.fingerprint:
            raise IdempotencyConflictError(
                f"the Idempotency-Key {self.key!r} was used for another request in the last 24 hours; "
                "use a new key for a new request"
            )
        return [str(video_id) for video_id in kept["videos"]]

    def watched(self) -> Sequence[str]:
        return [self._redis_key()]

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """:raises AlreadyCreatedError: when a concurrent request was first."""
        if (video_ids := self.find(pipe)) is not None:
            raise AlreadyCreatedError(video_ids)

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        kept = {"fingerprint": self.fingerprint, "videos": [record.id for record in records]}
        pipe.set(self._redis_key(), json.dumps(kept), ex=KEPT_SECONDS)

    def _redis_key(self) -> str:
        # Hashed: the key's text comes from a client and can be long.
        return redis_keys.idempotency(self.owner or "anonymous", hashlib.sha256(self.key.encode()).hexdigest())


def fingerprint(*parts: object) -> str:
    """Return a hash of a request, given as JSON values; the order of fields does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
