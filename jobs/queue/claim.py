"""Claiming jobs: a worker chooses the next job and moves it from its queue to a lease in one transaction.

So a crash loses no job. The transaction watches the job and not the queue: new videos in the queue do not disturb it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from jobs import redis_keys
from jobs.queue import fair_share, rq_adapter
from jobs.queue.fair_share import FairShare, QueueHead
from jobs.queue.priority_order import QUARANTINE, Lane, claim_order
from jobs.queue.rq_adapter import Lease
from jobs.queue.transitions import queue_of
from jobs.videos.record import PRIORITIES, VideoRecord
from jobs.videos.store import VideoStore

_TRIES = 5


@dataclass(frozen=True)
class Claim:
    """A job that belongs to this worker for as long as it renews the lease."""

    record: VideoRecord
    lease: Lease


class Claims:
    """Claims jobs of `models`: the highest priority first, then the models in rotation, then a fair share of the
    owners. For one thread."""

    def __init__(self, redis: Redis, store: VideoStore, models: Sequence[str], worker: str) -> None:
        self._redis = redis
        self._store = store
        self._models = models
        self._worker = worker
        self._fair_share = FairShare(redis)
        self._num_claims = 0
        self._next_model = 0
        self._is_quarantine_next = True

    def take(self, allows_quarantined: Callable[[VideoRecord], bool] = lambda record: True) -> Claim | None:
        """Claim the next job, None when there is none for now.

        At most every second job is in quarantine while others wait.

        Args:
            allows_quarantined: Returns whether this worker may claim a video that is in quarantine.
        """
        for _ in range(_TRIES):
            waiting = self._waiting()
            heads = self._quarantined(waiting[QUARANTINE], allows_quarantined)
            waiting[QUARANTINE] = list(heads)
            if not any(waiting.values()):
                return None
            for lane in claim_order(self._num_claims, self._is_quarantine_next):
                for model in self._in_rotation(waiting[lane]):
                    if (claim := self._take_from(lane, model, heads)) is not None:
                        self._count(lane, model)
                        return claim
        return None

    def anything_waiting(self) -> bool:
        return any(self._waiting().values())

    def _waiting(self) -> dict[Lane, list[str]]:
        """Return the models with waiting jobs, by lane."""
        with self._redis.pipeline(transaction=False) as pipe:
            for model in self._models:
                pipe.llen(redis_keys.queue(redis_keys.quarantine_queue_name(model)))
                for priority in PRIORITIES:
                    pipe.zcard(redis_keys.virtual_times(model, priority))
            counts = iter(pipe.execute())
        lanes: list[Lane] = [QUARANTINE, *PRIORITIES]
        waiting: dict[Lane, list[str]] = {lane: [] for lane in lanes}
        for model in self._models:
            for models in waiting.values():
                if next(counts):
                    models.append(model)
        return waiting

    def _quarantined(self, models: Sequence[str], allows: Callable[[VideoRecord], bool]) -> Mapping[str, str]:
        """Return the first video in quarantine of each model, as far as this worker may claim it."""
        heads = {}
        for model in models:
            queue = redis_keys.queue(redis_keys.quarantine_queue_name(model))
            raw = cast(bytes | None, self._redis.lindex(queue, 0))
            record = self._store.find(raw.decode()) if raw is not None else None
            # One without a record is claimed, which drops it from the queue.
            if raw is not None and (record is None or allows(record)):
                heads[model] = raw.decode()
        return heads

    def _take_from(self, lane: Lane, model: str, quarantined: Mapping[str, str]) -> Claim | None:
        if lane == QUARANTINE:
            return self._take(redis_keys.quarantine_queue_name(model), quarantined[model], None)
        head = self._fair_share.next(model, lane)
        return None if head is None else self._take(head.queue, head.job_id, head)

    def _count(self, lane: Lane, model: str) -> None:
        self._is_quarantine_next = lane != QUARANTINE
        self._num_claims += lane != QUARANTINE
        self._next_model = self._models.index(model) + 1

    def _in_rotation(self, models: Sequence[str]) -> Sequence[str]:
        count = len(self._models)
        return sorted(models, key=lambda model: (self._models.index(model) - self._next_model) % count)

    def _take(self, queue: str, job_id: str, head: QueueHead | None) -> Claim | None:
        """Claim the job at the head of a queue, None when another worker was faster or the job is not to be run."""
        with self._redis.pipeline() as pipe:
            try:
                pipe.watch(redis_keys.job(job_id))
                job = rq_adapter.fetch_waiting_job(self._redis, job_id)
                record = self._store.find(job_id)
                pipe.multi()
                if job is None or record is None or queue_of(record) != queue:
                    pipe.lrem(redis_keys.queue(queue), 0, job_id)
                    pipe.execute()
                    return None
                _dequeue(pipe, queue, record)
                lease = rq_adapter.lease_job(job, self._worker, pipe)
                if head is not None:
                    fair_share.charge(pipe, record.request.model, record.request.priority, head, record.cost)
                pipe.execute()
            except WatchError:
                return None
        return Claim(record, lease)


def _dequeue(pipe: Pipeline, queue: str, record: VideoRecord) -> None:
    # Once, though concurrent clean-ups of RQ can queue a job twice: LREM of all would search the whole queue. The claim
    # that meets a double drops it.
    pipe.lrem(redis_keys.queue(queue), 1, record.id)
    pipe.hincrby(redis_keys.WAITING_COST, queue, -record.cost)
