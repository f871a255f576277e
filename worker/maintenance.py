"""Bringing records back on their way that nobody is at work on: after a crash of a worker, or of Redis."""

import logging
from collections.abc import Sequence

from redis import Redis
from rq.queue import Queue
from rq.serializers import JSONSerializer

from jobs import queue as job_queue
from jobs.records import VideoRecord
from jobs.store import VideoStore
from worker.leases import leased_jobs

logger = logging.getLogger(__name__)


class Maintenance:
    """Every worker does this every few seconds, also for models that it does not serve; doing it twice is harmless."""

    def __init__(self, redis: Redis, store: VideoStore, max_attempts: int) -> None:
        self._redis = redis
        self._store = store
        self._max_attempts = max_attempts
        self._suspects: set[str] = set()

    def run(self) -> None:
        """Look through the unfinished records once. Raises `RedisError` when Redis is away."""
        # Records first, leases after: what was taken in between has a lease by then.
        records = self._store.unfinished()
        queues = _queues(self._redis, records)
        leased = leased_jobs(self._redis, queues)
        idle = [record for record in records if record.id not in leased]
        for record in idle:
            if record.status == "in_progress":
                self._recover(record)
        # All of each queue at once: to look for one record after the other takes the square of their number.
        waiting = {job_id for queue in queues for job_id in queue.job_ids}
        self._enqueue_lost([record for record in idle if record.status == "queued" and record.id not in waiting])

    def _recover(self, record: VideoRecord) -> None:
        """A worker started it and is gone: try again, unless it may be what ends the workers."""
        if record.attempts < self._max_attempts:
            if self._store.requeue(record.id, record.worker):
                logger.warning("%s: its worker %s is gone, queued again", record.id, record.worker)
        elif self._store.fail(record.id, "worker_lost", _lost(record.attempts), record.worker):
            self._redis.delete(job_queue.job_key(record))
            logger.error("%s: its worker %s is gone, given up", record.id, record.worker)

    def _enqueue_lost(self, records: Sequence[VideoRecord]) -> None:
        """A queued record without a job is not known to happen; one seen so twice in a row gets a new job.

        Twice, because between two looks a job can be on its way from the queue to a worker.
        """
        lost = {record.id: record for record in records}
        for video_id in lost.keys() & self._suspects:
            logger.warning("%s: queued without a job, queued again", video_id)
            with self._redis.pipeline() as pipe:
                job_queue.enqueue(self._redis, [lost[video_id]], pipe, self._max_attempts, at_front=True)
                pipe.execute()
        self._suspects = set(lost) - self._suspects


def _queues(redis: Redis, records: Sequence[VideoRecord]) -> list[Queue]:
    names = {job_queue.queue_name(record.request.model, record.request.priority) for record in records}
    return [Queue(name, connection=redis, serializer=JSONSerializer) for name in sorted(names)]


def _lost(attempts: int) -> str:
    times = "once" if attempts == 1 else f"{attempts} times"
    return f"the worker ended while it was making this video, {times}"
