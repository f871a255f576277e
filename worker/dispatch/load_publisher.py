"""Publishes the load and the speed of this worker, from which the server estimates waits."""

import logging
from collections.abc import Mapping

from redis import Redis
from redis.exceptions import RedisError

from jobs.admission.worker_load import ModelState, WorkerLoad, publish_load, withdraw_load
from jobs.videos.record import Timings
from worker.dispatch.active_jobs import ActiveJobs

logger = logging.getLogger(__name__)

# In the moving average of the time that finishing takes.
_WEIGHT_OF_LAST = 0.2


class LoadPublisher:
    def __init__(self, redis: Redis, worker: str, ttl_seconds: float) -> None:
        self._redis = redis
        self._worker = worker
        self._ttl_seconds = ttl_seconds
        self._finishing_seconds: dict[str, float] = {}

    def record_finishing(self, model: str, timings: Timings) -> None:
        """Update the moving average of the time that decoding and encoding take."""
        seconds = (timings.decode_s or 0) + (timings.encode_s or 0)
        average = self._finishing_seconds.get(model, seconds)
        self._finishing_seconds[model] = average + _WEIGHT_OF_LAST * (seconds - average)

    def publish(
        self,
        jobs: ActiveJobs,
        free_slots: int,
        cost_per_second: Mapping[str, float],
        models: Mapping[str, ModelState],
        refused_adapters: Mapping[str, str],
    ) -> None:
        """Raises `RedisError`."""
        load = WorkerLoad(
            cost_per_second=dict(cost_per_second),
            remaining={job.record.id: job.remaining for job in jobs},
            free_slots=max(0, free_slots),
            finishing_seconds=self._finishing_seconds.copy(),
            models=dict(models),
            refused_adapters=dict(refused_adapters),
        )
        publish_load(self._redis, self._worker, load, self._ttl_seconds)

    def withdraw(self) -> None:
        """Remove the load at the end of the worker."""
        try:
            withdraw_load(self._redis, self._worker)
        except RedisError as error:
            logger.warning("worker load not withdrawn, it expires by itself: %s", error)
