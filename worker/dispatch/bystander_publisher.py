"""Publishes which videos of this worker are neither in a pass nor being prepared: if it dies, they are not suspects."""

from redis import Redis

from jobs.queue.deaths import Bystanders, publish_bystanders


class BystanderPublisher:
    def __init__(self, redis: Redis, worker: str) -> None:
        self._redis = redis
        self._worker = worker
        self._published = Bystanders()

    def update(self, bystanders: Bystanders) -> None:
        """Publish the videos if they have changed. Raises `RedisError`."""
        if bystanders != self._published:
            publish_bystanders(self._redis, self._worker, bystanders)
            self._published = bystanders

    def renew(self) -> None:
        """Publish the videos again before they expire. Raises `RedisError`."""
        publish_bystanders(self._redis, self._worker, self._published)
