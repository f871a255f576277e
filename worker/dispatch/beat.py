"""The periodic work of a worker: publish metrics, and recover lost videos."""

from redis import Redis

from jobs.queue.recover import LostVideos, Recovery
from jobs.settings import Settings
from worker.metrics import Meter


class Beat:
    """Call it every few seconds."""

    def __init__(self, settings: Settings, redis: Redis, name: str, meter: Meter) -> None:
        self._name = name
        self._ttl_seconds = settings.worker_ttl_seconds
        self._meter = meter
        self._recovery = Recovery(redis, LostVideos(redis, settings.video_ttl_seconds), settings.max_attempts)

    def __call__(self) -> None:
        self._meter.publish(self._name, self._ttl_seconds)
        self._recovery.revoke_death(self._name)
        self._recovery.run()
