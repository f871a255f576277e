"""Bringing records back on their way that nobody is at work on: after a crash of a worker, or of Redis."""

import logging
from collections.abc import Iterable
from typing import cast

from redis import Redis

from jobs import queue as job_queue
from jobs.queue import all_queues, forget_if_empty
from jobs.records import VideoRecord
from jobs.store import VideoStore
from worker.leases import leased_jobs, release_leases

logger = logging.getLogger(__name__)


_RUNS_PER_CLEANUP = 15


class Maintenance:
    """Every worker does this every few seconds, also for models that it does not serve; doing it twice is harmless.

    Nothing is done about what is seen for the first time: a job can be on its way from the queue to a worker, and after
    an outage of Redis a worker that has gone on all the while must first come back and renew its leases.
    """

    def __init__(self, redis: Redis, store: VideoStore, max_attempts: int) -> None:
        self._redis = redis
        self._store = store
        self._max_attempts = max_attempts
        self._suspects: set[str] = set()
        self._runs = 0

    def run(self) -> None:
        """Look once. Raises `RedisError` when Redis is away."""
        suspects, self._suspects = self._suspects, set()
        lost = self._nobodys()
        for record in self._store.fetch(lost & suspects):
            if record.status == "in_progress":
                self.recover(record)
            elif self._store.enqueue_lost(record.id):
                logger.warning("%s: queued without a job, queued again", record.id)
        self._suspects = lost
        if self._runs % _RUNS_PER_CLEANUP == 0:
            self._forget_ended_jobs()
        self._runs += 1

    def recover(self, record: VideoRecord) -> None:
        """A worker started it and is gone. What was made with others is made alone from now on, which tells whose fault
        it was; one at which another worker dies then is charged for the first, too."""
        deaths = record.attempts + 1
        if record.alone and deaths >= self._max_attempts:
            if self._store.fail(record.id, "worker_lost", _lost(deaths), record.worker):
                self._redis.delete(job_queue.job_key(record))
                logger.error("%s: its worker %s is gone, given up", record.id, record.worker)
        elif self._store.requeue(record.id, record.worker, used_attempt=record.alone, alone=True):
            logger.warning("%s: its worker %s is gone, queued again", record.id, record.worker)

    def recover_worker(self, name_prefix: str) -> None:
        """Recover at once what workers had that are known to be dead, by the start of their names."""
        release_leases(self._redis, name_prefix)
        for record in self._store.fetch(self._store.running_ids()):
            if (record.worker or "").startswith(name_prefix):
                self.recover(record)

    def _forget_ended_jobs(self) -> None:
        """RQ's lists of finished and failed jobs, and of queues, let go of an entry only when they are told to."""
        for queue in all_queues(self._redis):
            queue.finished_job_registry.cleanup()
            queue.failed_job_registry.cleanup()
            forget_if_empty(queue)

    def _nobodys(self) -> set[str]:
        """The unfinished videos that no living worker has and that wait in no queue, or wait although they are started:
        RQ's own clean-up, which other tools call, knows nothing of our records."""
        # Records first, leases after: what was taken in between has a lease by then.
        unfinished, running = set(self._store.unfinished_ids()), set(self._store.running_ids())
        if not unfinished:
            return set()
        return (running | (unfinished - self._waiting())) - leased_jobs(self._redis)

    def _waiting(self) -> set[str]:
        # Each queue at once: to look for one record after the other takes the square of their number.
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in all_queues(self._redis):
                pipe.lrange(queue.key, 0, -1)
            return {raw.decode() for ids in cast(Iterable[list[bytes]], pipe.execute()) for raw in ids}


def _lost(deaths: int) -> str:
    return f"the worker ended while it was making this video, {deaths} times"
