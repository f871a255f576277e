"""Metrics of a worker, and traces if they are configured."""

import time

import torch
from redis import Redis

from jobs.telemetry.metrics import Metrics, Publisher, report_device
from jobs.telemetry.tracing import Tracing
from jobs.videos.record import Timings, VideoRecord
from worker.device import memory_bytes


class Meter:
    """Counts events of this worker. Thread-safe, except that one thread calls `publish`."""

    def __init__(self, redis: Redis, device: torch.device, tracing: Tracing | None = None) -> None:
        self._redis = redis
        self._device = device
        self._tracing = tracing
        self._metrics = Metrics()
        self._publisher = Publisher(redis, self._metrics)

    def started(self, record: VideoRecord) -> None:
        """Record the queue wait of a video at its first attempt."""
        if record.attempts == 1 and record.started_at is not None:
            self._metrics.queue_wait.observe(max(0.0, record.started_at - record.created_at))

    def passed(self, model: str, rows: int, seconds: float) -> None:
        """Record a forward pass of `rows` rows."""
        self._metrics.step_seconds.labels(model, str(rows)).observe(seconds)
        self._metrics.batch_rows.observe(rows)

    def completed(self, record: VideoRecord, timings: Timings) -> None:
        """Record a video whose files and record are stored."""
        now = time.time()
        self._metrics.video_seconds.labels(record.request.model).observe(max(0.0, now - record.created_at))
        for name, seconds in timings:
            if seconds is not None:
                self._metrics.stage_seconds.labels(name.removesuffix("_s")).observe(seconds)

        if self._tracing is not None:
            self._trace(self._tracing, record, timings, now)

    def failed(self, record: VideoRecord, code: str) -> None:
        """Record a video that has failed."""
        if self._tracing is not None:
            record_video_span(self._tracing, record, time.time(), code)

    def _trace(self, tracing: Tracing, record: VideoRecord, timings: Timings, now: float) -> None:
        video = record_video_span(tracing, record, now)
        started = record.started_at or record.created_at
        encoding = now - (timings.encode_s or 0)
        tracing.record_span("queue", video, record.created_at, started)
        tracing.record_span("denoise", video, started, started + (timings.denoise_s or 0))
        tracing.record_span("decode", video, encoding - (timings.decode_s or 0), encoding)
        tracing.record_span("encode", video, encoding, now)

    def publish(self, worker: str, ttl_seconds: int) -> None:
        """Publish the metrics, before `ttl_seconds` pass. After a `RedisError` the next call publishes everything."""
        self._publisher.publish()
        report_device(self._redis, worker, memory_bytes(self._device), ttl_seconds)

    def close(self) -> None:
        if self._tracing is not None:
            self._tracing.close()


def record_video_span(tracing: Tracing, record: VideoRecord, now: float, error: str | None = None) -> str:
    """Send the span of a video, as a child of the HTTP request that created it."""
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
    return tracing.record_span("video", record.traceparent, record.created_at, now, attributes)
