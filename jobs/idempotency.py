"""`Idempotency-Key`: a request that is sent again makes no second video.

What a key stands for, `framedit:idempotency:<owner>:<hash of the key>`, is written in the transaction that creates the
videos. So there is no moment, and no crash, between the two, and of two requests at once one finds the other's.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline

from jobs.errors import IdempotencyConflictError
from jobs.records import VideoRecord

KEPT_SECONDS = 24 * 3600


class AlreadyCreatedError(Exception):
    """Not a failure: the videos of this key are there."""

    def __init__(self, video_ids: Sequence[str]) -> None:
        super().__init__(", ".join(video_ids))
        self.video_ids = video_ids


@dataclass(frozen=True)
class OnceGuard:
    """One key of one owner and the request that it came with, as a `Guard` of `VideoStore.create`."""

    owner: str | None
    key: str
    fingerprint: str

    def find(self, redis: Redis) -> Sequence[str] | None:
        """The ids of the videos that were created with this key, None where it is new.

        :raises IdempotencyConflictError: when it came with another request.
        """
        raw = cast(bytes | None, redis.get(self._redis_key()))
        if raw is None:
            return None
        kept: dict[str, Any] = json.loads(raw)
        if kept["fingerprint"] != self.fingerprint:
            raise IdempotencyConflictError(
                f"the Idempotency-Key {self.key!r} came with another request in the last 24 hours; "
                "take a new key for a new request"
            )
        return [str(video_id) for video_id in kept["videos"]]

    def watched(self) -> Sequence[str]:
        return [self._redis_key()]

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """:raises AlreadyCreatedError: when a request at the same time was first."""
        if (video_ids := self.find(pipe)) is not None:
            raise AlreadyCreatedError(video_ids)

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        kept = {"fingerprint": self.fingerprint, "videos": [record.id for record in records]}
        pipe.set(self._redis_key(), json.dumps(kept), ex=KEPT_SECONDS)

    def _redis_key(self) -> str:
        # Hashed: a client's own text is no part of a name in Redis, whatever its length.
        return f"framedit:idempotency:{self.owner or 'anonymous'}:{hashlib.sha256(self.key.encode()).hexdigest()}"


def fingerprint(*parts: object) -> str:
    """Of a request, given as JSON values: the same for the same, in whatever order its fields come."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
