"""What clients ask for again and again while they wait: the state of one video.

It is the one route that all clients together call hundreds of times a second, so it runs in the event loop, reads the
record in one exchange with Redis, and looks only now and then how the queues stand.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from jobs import queue
from jobs.errors import VideoNotFoundError
from jobs.forecast import Forecast, Outlook, forecast_of, read_outlook
from jobs.records import VideoRecord, is_video_id
from jobs.store import from_hash, record_key
from server.batched_redis import Command

# After which it is looked anew how the queues stand, and what is too old to be told meanwhile.
_MAX_AGE_SECONDS = 0.5
_OLDEST_SECONDS = 5.0
# The places of those further back are not told apart.
_MAX_PLACES = 5000

_MIN_PAUSE_MS, _PAUSE_MS, _MAX_PAUSE_MS = 500, 1000, 5000
_PAUSES_A_WAIT = 20


@dataclass(frozen=True)
class _Standing:
    """How the queues of a model stood at a time (Unix seconds)."""

    outlook: Outlook
    places: Mapping[str, int]
    read_at: float


class Looks:
    """To be used in one event loop. All methods raise `RedisError` when Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._standings: dict[str, _Standing] = {}
        self._being_read: dict[str, asyncio.Task[_Standing]] = {}

    async def forecast(self, record: VideoRecord) -> Forecast:
        """As `jobs.forecast.forecast`, a little later."""
        if record.status not in ("queued", "in_progress"):
            return Forecast()
        standing = await self._standing(record)
        return forecast_of(standing.outlook, record, standing.places.get(record.id))

    async def _standing(self, record: VideoRecord) -> _Standing:
        """Nobody waits for a newer one, but who has come to a queue after it."""
        model = record.request.model
        standing = self._standings.get(model)
        for _ in range(2):  # one that is being read may have begun too early
            if standing is None or standing.read_at <= record.created_at or _age(standing) > _OLDEST_SECONDS:
                standing = await asyncio.shield(self._read_once(model))
        assert standing is not None
        if _age(standing) > _MAX_AGE_SECONDS:
            self._read_once(model)
        return standing

    def _read_once(self, model: str) -> "asyncio.Task[_Standing]":
        """All who want it now get the same one."""
        if model not in self._being_read:
            task = self._being_read[model] = asyncio.create_task(asyncio.to_thread(self._read, model))
            task.add_done_callback(lambda task: self._keep(model, task))
        return self._being_read[model]

    def _keep(self, model: str, task: "asyncio.Task[_Standing]") -> None:
        del self._being_read[model]
        if not task.cancelled() and task.exception() is None:  # whoever waits for it is told what went wrong
            self._standings[model] = task.result()

    def _read(self, model: str) -> _Standing:
        read_at = time.time()
        outlook = read_outlook(self._redis, model)
        with self._redis.pipeline(transaction=False) as pipe:
            for line in outlook.lines:
                pipe.lrange(queue.PREFIX + line.name, 0, _MAX_PLACES - 1)
            listed = cast(list[list[bytes]], pipe.execute()) if outlook.lines else []
        return _Standing(outlook, {raw.decode(): index for ids in listed for index, raw in enumerate(ids)}, read_at)


def _age(standing: _Standing) -> float:
    return time.time() - standing.read_at


def questions(video_id: str) -> list[Command]:
    """What to ask Redis for a record."""
    return [("HGETALL", record_key(video_id))] if is_video_id(video_id) else []


def record_of(video_id: str, answers: Sequence[Any]) -> VideoRecord:
    """The record from the answers to `questions`.

    :raises VideoNotFoundError: when there is no such record.
    """
    if not answers or not answers[0]:
        raise VideoNotFoundError(video_id)
    raw = answers[0]
    # In the second version of Redis's protocol a hash is a list.
    return from_hash(raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True)))


def pause_ms(forecast: Forecast) -> int:
    """When to ask again: the longer the wait, the later; a client learns of the end a twentieth of its wait late."""
    if forecast.eta_seconds is None:
        return _PAUSE_MS
    return round(min(max(1000 * forecast.eta_seconds / _PAUSES_A_WAIT, _MIN_PAUSE_MS), _MAX_PAUSE_MS))
