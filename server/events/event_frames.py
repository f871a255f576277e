"""Formats the events of one video as server-sent events, with the data that the events themselves do not carry."""

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from redis import Redis

from jobs.videos.events import EVENT_OF, VideoEvent
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from server.events.event_hub import DELETED
from server.objects.video import VideoProgress, VideoRemoved, current_video
from server.polling.forecast_cache import ForecastCache


class EventFrames:
    """The frames of one stream. All methods raise `RedisError` when Redis does not answer; the event can be retried."""

    def __init__(self, redis: Redis, store: VideoStore, forecasts: ForecastCache, record: VideoRecord) -> None:
        self._redis = redis
        self._store = store
        self._forecasts = forecasts
        self._record: VideoRecord | None = record
        self._video_id = record.id

    async def frame(self, event: VideoEvent) -> bytes:
        """The frame of an event; a comment where the video has changed since and another event follows."""
        if event.name == "progress":
            return await self._progress_frame(event)
        self._record = None if event is DELETED else await self._read_record()
        if self._record is None:
            return format_sse_event(event="failed", data_str=VideoRemoved(id=self._video_id).model_dump_json())
        if EVENT_OF[self._record.status] != event.name:
            return KEEPALIVE_COMMENT
        video = await run_in_threadpool(current_video, self._redis, self._record)
        return format_sse_event(event=event.name, data_str=video.model_dump_json(), id=event.id)

    async def _progress_frame(self, event: VideoEvent) -> bytes:
        if self._record is None or self._record.status != "in_progress":  # a worker has claimed it since
            self._record = await self._read_record()
        data = event.data | {"eta_seconds": await self._eta_seconds(event.data["step"])}
        progress = VideoProgress(id=self._video_id, **data)
        return format_sse_event(event="progress", data_str=progress.model_dump_json(), id=event.id)

    async def _eta_seconds(self, step: int) -> float | None:
        if self._record is None:
            return None
        record = self._record.model_copy(update={"step": step})
        return (await self._forecasts.forecast(record)).eta_seconds

    async def _read_record(self) -> VideoRecord | None:
        return await run_in_threadpool(self._store.find, self._video_id)
