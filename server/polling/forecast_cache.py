"""Cached queue positions and ETAs for clients that poll or follow many videos at once."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.admission.eta import Forecast, QueueState, forecast_of, read_queue_state
from jobs.videos.record import VideoRecord

# An older state is refreshed in the background, and one above the limit is not used any more.
_REFRESH_AFTER_SECONDS = 0.5
_MAX_AGE_SECONDS = 5.0
# Videos further back get no queue position from the cache.
_MAX_POSITIONS = 5000


@dataclass(frozen=True)
class _QueueState:
    """The queues of a model as they were at `read_at` (Unix seconds); `indexes` by video, within its own queue."""

    queue_state: QueueState
    indexes: Mapping[str, int]
    read_at: float

    @property
    def age_seconds(self) -> float:
        return time.time() - self.read_at


class ForecastCache:
    """The queue state of each model, read at most twice a second. For one event loop."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._states: dict[str, _QueueState] = {}
        self._reads: dict[str, asyncio.Task[_QueueState]] = {}

    async def forecast(self, record: VideoRecord) -> Forecast:
        """The same as `jobs.admission.eta.forecast`, slightly delayed.

        :raises RedisError: when Redis does not answer.
        """
        if record.status not in ("queued", "in_progress"):
            return Forecast()
        state = await self._state(record)
        return forecast_of(state.queue_state, record, state.indexes.get(record.id))

    async def _state(self, record: VideoRecord) -> _QueueState:
        """The cached state. Only a video that is newer than it waits for the next read."""
        model = record.request.model
        state = self._states.get(model)
        for _ in range(2):  # a read in progress may have started before the video was queued
            if state is None or state.read_at <= record.created_at or state.age_seconds > _MAX_AGE_SECONDS:
                state = await asyncio.shield(self._refresh(model))
        assert state is not None
        if state.age_seconds > _REFRESH_AFTER_SECONDS:
            self._refresh(model)
        return state

    def _refresh(self, model: str) -> asyncio.Task[_QueueState]:
        """The read in progress, or a new one: concurrent requests share it."""
        if model not in self._reads:
            task = self._reads[model] = asyncio.create_task(asyncio.to_thread(self._read, model))
            task.add_done_callback(lambda task: self._store(model, task))
        return self._reads[model]

    def _store(self, model: str, task: asyncio.Task[_QueueState]) -> None:
        del self._reads[model]
        if not task.cancelled() and task.exception() is None:  # requests that await the task receive its error
            self._states[model] = task.result()

    def _read(self, model: str) -> _QueueState:
        read_at = time.time()
        queue_state = read_queue_state(self._redis, model)
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in queue_state.queues:
                pipe.lrange(redis_keys.queue(queue.name), 0, _MAX_POSITIONS - 1)
            queues = cast(list[list[bytes]], pipe.execute()) if queue_state.queues else []
        indexes = {raw.decode(): index for video_ids in queues for index, raw in enumerate(video_ids)}
        return _QueueState(queue_state, indexes, read_at)
