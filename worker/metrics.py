"""What a worker tells of its work: metrics, and traces where they are wanted."""

import time

import torch
from redis import Redis

from jobs.metrics import Metrics, Publisher, report_device
from jobs.records import Timings, VideoRecord
from jobs.tracing import Tracing
from worker.device import memory_bytes


class Meter:
    """Counts what happens in this worker; `publish` takes it to Redis."""

    def __init__(self, redis: Redis, device: torch.device, tracing: Tracing | None = None) -> None:
        self._redis = redis
        self._device = device
        self._tracing = tracing
        self._metrics = Metrics()
        self._publisher = Publisher(redis, self._metrics)

    def started(self, record: VideoRecord) -> None:
        """A video has left the queue; one that comes from it again has waited only once."""
        if record.attempts == 1 and record.started_at is not None:
            self._metrics.queue_wait.observe(max(0.0, record.started_at - record.created_at))

    def passed(self, model: str, rows: int, seconds: float) -> None:
        """A model has run once over a batch of `rows` rows."""
        self._metrics.step_seconds.labels(model, str(rows)).observe(seconds)
        self._metrics.batch_rows.observe(rows)

    def completed(self, record: VideoRecord, timings: Timings) -> None:
        """A video's file is in the store and its record says so."""
        now = time.time()
        self._metrics.video_seconds.labels(record.request.model).observe(max(0.0, now - record.created_at))
        for name, seconds in timings:
            if seconds is not None:
                self._metrics.stage_seconds.labels(name.removesuffix("_s")).observe(seconds)

        if self._tracing is not None:
            self._trace(self._tracing, record, timings, now)

    def failed(self, record: VideoRecord, code: str) -> None:
        """A video will not be made."""
        if self._tracing is not None:
            tell_video(self._tracing, record, time.time(), code)

    def _trace(self, tracing: Tracing, record: VideoRecord, timings: Timings, now: float) -> None:
        video = tell_video(tracing, record, now)
        started = record.started_at or record.created_at
        encoding = now - (timings.encode_s or 0)
        tracing.tell("queue", video, record.created_at, started)
        tracing.tell("denoise", video, started, started + (timings.denoise_s or 0))
        tracing.tell("decode", video, encoding - (timings.decode_s or 0), encoding)
        tracing.tell("encode", video, encoding, now)

    def publish(self, worker: str, ttl_seconds: int) -> None:
        """To be called well within `ttl_seconds`. Raises `RedisError`; what was counted goes with the next call."""
        self._publisher.publish()
        report_device(self._redis, worker, memory_bytes(self._device), ttl_seconds)

    def close(self) -> None:
        if self._tracing is not None:
            self._tracing.close()


def tell_video(tracing: Tracing, record: VideoRecord, now: float, error: str | None = None) -> str:
    """The span of a video's life, below the request that asked for it."""
    request = record.request
    attributes: dict[str, str | int | float] = {
        "framedit.video_id": record.id,
        "framedit.request_id": record.request_id or "",
        "framedit.model": request.model,
        "framedit.num_frames": request.num_frames,
        "framedit.num_inference_steps": request.num_inference_steps,
        "framedit.attempts": record.attempts,
        **({} if error is None else {"error": error}),
    }
    return tracing.tell("video", record.traceparent, record.created_at, now, attributes)
