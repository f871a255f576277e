"""What a worker measures."""

import time
from collections.abc import Callable

import torch
from redis import Redis

from jobs.metrics import Metrics, Publisher, report_device
from jobs.records import Timings, VideoRecord, VideoRequest
from worker.device import memory_bytes


class Meter:
    """Counts what happens in this worker; `publish` takes it to Redis."""

    def __init__(self, redis: Redis, device: torch.device) -> None:
        self._redis = redis
        self._device = device
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

    def timing_steps(self, request: VideoRequest, on_step: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """`on_step`, with the time between its calls counted as that of a step."""
        rows = 1 if request.guidance_scale == 1 else 2
        started = time.perf_counter()

        def timed(step: int, steps: int) -> None:
            nonlocal started
            self.passed(request.model, rows, time.perf_counter() - started)
            on_step(step, steps)
            started = time.perf_counter()

        return timed

    def completed(self, record: VideoRecord, timings: Timings) -> None:
        """A video's file is in the store and its record says so."""
        self._metrics.video_seconds.labels(record.request.model).observe(max(0.0, time.time() - record.created_at))
        for name, seconds in timings:
            if seconds is not None:
                self._metrics.stage_seconds.labels(name.removesuffix("_s")).observe(seconds)

    def publish(self, worker: str, ttl_seconds: int) -> None:
        """To be called well within `ttl_seconds`. Raises `RedisError`; what was counted goes with the next call."""
        self._publisher.publish()
        report_device(self._redis, worker, memory_bytes(self._device), ttl_seconds)
