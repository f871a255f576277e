"""Reading the records of videos.

A record is a Redis hash with a JSON value for each field of `VideoRecord`. Sorted sets hold the ids of all videos, of
one owner's, and of those that are unfinished, in progress or expiring (`jobs/redis_keys.py`). Records change only
through `jobs/queue/transitions.py`.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from redis import Redis

from jobs import redis_keys
from jobs.errors import InvalidRequestError, VideoNotFoundError
from jobs.videos.record import Status, VideoRecord, is_video_id

logger = logging.getLogger(__name__)

_NUM_IDS_AT_ONCE = 1000


@dataclass(frozen=True)
class Page:
    records: Sequence[VideoRecord]
    has_more: bool


class VideoStore:
    """Read records. All methods raise `redis.exceptions.RedisError` when Redis does not answer.

    The roles that change records extend it: `VideoQueue` (server), `ClaimedVideos` (worker), `LostVideos` (recovery),
    `ExpiredVideos` (janitor).
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def get(self, video_id: str) -> VideoRecord:
        """:raises VideoNotFoundError: when there is no such record."""
        record = self.find(video_id)
        if record is None:
            raise VideoNotFoundError(video_id)
        return record

    def find(self, video_id: str) -> VideoRecord | None:
        """Return a record, None when there is no such record or it cannot be read."""
        key = redis_keys.video(video_id)
        raw = cast(dict[bytes, bytes], self._redis.hgetall(key)) if is_video_id(video_id) else {}
        return read_record(video_id, raw)

    def fetch(self, video_ids: Iterable[str]) -> Sequence[VideoRecord]:
        """Return the records of these videos, without those that do not exist or cannot be read."""
        ids = list(video_ids)
        with self._redis.pipeline(transaction=False) as pipe:
            for video_id in ids:
                pipe.hgetall(redis_keys.video(video_id))
            found = (read_record(video_id, raw) for video_id, raw in zip(ids, pipe.execute(), strict=True))
            return [record for record in found if record is not None]

    def list(
        self,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
        owner: str | None = None,
    ) -> Page:
        """Return the records of one owner, or of all, by age: newest first (`desc`) or oldest first (`asc`).

        Args:
            after: Start behind this video, which may have been deleted.

        :raises InvalidRequestError: when `after` is not a video id.
        """
        if after is not None and not is_video_id(after):
            raise InvalidRequestError(f"after is {after!r}; it must be the id of a video", param="after")
        start = f"({after}" if after is not None else "+" if order == "desc" else "-"
        end = "-" if order == "desc" else "+"
        key = redis_keys.VIDEOS if owner is None else redis_keys.videos_of(owner)
        ids = self._redis.zrange(key, start, end, desc=order == "desc", bylex=True, offset=0, num=limit + 1)
        found = [raw.decode() for raw in cast(Sequence[bytes], ids)]
        return Page(self.fetch(found[:limit]), has_more=len(found) > limit)

    def is_gone(self, video_id: str, owner: str | None = None) -> bool:
        """Return whether a video (of this owner, or of any) expired or lost its files within the last day."""
        raw = cast(bytes | None, self._redis.get(redis_keys.gone(video_id))) if is_video_id(video_id) else None
        return raw is not None and owner in (None, raw.decode())

    def unfinished_ids(self) -> Sequence[str]:
        """Return the ids of all queued videos and videos in progress, oldest first."""
        return [raw.decode() for raw in cast(Sequence[bytes], self._redis.zrange(redis_keys.UNFINISHED, 0, -1))]

    def unfinished(self) -> Sequence[VideoRecord]:
        """Return all records that are queued or in progress, oldest first."""
        return self.fetch(self.unfinished_ids())

    def states(self) -> dict[str, Status]:
        """Return the state of every video."""
        ids = [raw.decode() for raw in cast(Sequence[bytes], self._redis.zrange(redis_keys.VIDEOS, 0, -1))]
        states: dict[str, Status] = {}
        for start in range(0, len(ids), _NUM_IDS_AT_ONCE):
            some = ids[start : start + _NUM_IDS_AT_ONCE]
            with self._redis.pipeline(transaction=False) as pipe:
                for video_id in some:
                    pipe.hget(redis_keys.video(video_id), "status")
                found = zip(some, pipe.execute(), strict=True)
            states |= {video_id: json.loads(raw) for video_id, raw in found if raw is not None}
        return states

    def snapshot(self, video_id: str) -> bytes | None:
        """Return the last snapshot of an unfinished video, None when there is none."""
        return cast(bytes | None, self._redis.get(redis_keys.snapshot(video_id)))


def read_record(video_id: str, raw: Mapping[bytes, bytes]) -> VideoRecord | None:
    """Return the record that a hash holds, None for an empty one.

    One that cannot be read is logged and counts as missing, so that it does not break the reading of others.
    """
    try:
        return from_hash(raw) if raw else None
    except ValueError as error:
        logger.error("%s: record skipped, it cannot be read: %s", video_id, error)
        return None


def encode(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a record's hash."""
    # As UTF-8: escapes would take up to twelve bytes for a character.
    return {name: json.dumps(value, ensure_ascii=False) for name, value in fields.items()}


def to_hash(record: VideoRecord) -> dict[str, str]:
    return encode(record.model_dump(mode="json"))


def from_hash(raw: Mapping[bytes, bytes]) -> VideoRecord:
    """Return the record that a hash holds."""
    # The values are JSON: joined, they are parsed and checked in one call.
    return VideoRecord.model_validate_json(b"{%b}" % b",".join(b'"%b":%b' % pair for pair in raw.items()))
