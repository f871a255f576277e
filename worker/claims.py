"""Taking jobs: which one is next, and taking it off its queue and under a lease in one step.

Nothing is taken without a lease, so that no crash can lose it, and no queue is watched, so that requests that come in
meanwhile disturb nothing: it is the job itself that only one worker can change.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import WatchError
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer

from jobs import turns
from jobs.queue import PREFIX, PRIORITIES, TASK, alone_name, dequeue, next_turn, open_queue, queue_key
from jobs.records import Priority, VideoRecord
from jobs.store import VideoStore
from worker.leases import LEASE_SECONDS

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
# Most turns go to the highest priority that waits. Every eighth goes to a lower one before, so that it is late at worst
# and never forgotten, however much of the higher ones keeps coming.
_USUAL_ORDER: Sequence[Priority] = PRIORITIES
_ORDERS: Mapping[int, Sequence[Priority]] = {3: ("normal", "high", "low"), 7: ("low", "normal", "high")}
_ROUND = 8


@dataclass(frozen=True)
class Claim:
    """A job that is this worker's for as long as it renews the execution."""

    record: VideoRecord
    job: Job
    queue: Queue
    execution: Execution


@dataclass(frozen=True)
class _Waiting:
    """The models that have something waiting: to be made alone, and by priority."""

    alone: Sequence[str]
    by_priority: Mapping[Priority, Sequence[str]]


class Claims:
    """What waits for `models`. Priorities before models, the models of one priority in turn, inside a model owners in
    turn (`jobs/turns.py`). For one thread."""

    def __init__(self, redis: Redis, store: VideoStore, models: Sequence[str], worker: str) -> None:
        self._redis = redis
        self._store = store
        self._models = models
        self._worker = worker
        self._round = 0
        self._next_model = 0

    def take(self, idle: bool) -> Claim | None:
        """The next job, None when there is none to be taken now. `idle` says that the worker has no other.

        A video that has to be made alone waits for an idle worker, and so that there will be one, a worker that is not
        idle takes nothing else meanwhile.
        """
        for _ in range(_ATTEMPTS):
            waiting = self._look()
            if waiting.alone:
                return self._take_alone(waiting.alone[0]) if idle else None
            if not any(waiting.by_priority.values()):
                return None
            if (claim := self._take_in_turn(waiting)) is not None:
                return claim
        return None

    def anything_waiting(self) -> bool:
        waiting = self._look()
        return bool(waiting.alone) or any(waiting.by_priority.values())

    def _look(self) -> _Waiting:
        with self._redis.pipeline(transaction=False) as pipe:
            for model in self._models:
                pipe.llen(PREFIX + alone_name(model))
                for priority in PRIORITIES:
                    pipe.zcard(turns.turns_key(model, priority))
            counts = iter(pipe.execute())
        alone = []
        by_priority: dict[Priority, list[str]] = {priority: [] for priority in PRIORITIES}
        for model in self._models:
            if next(counts):
                alone.append(model)
            for priority in PRIORITIES:
                if next(counts):
                    by_priority[priority].append(model)
        return _Waiting(alone, by_priority)

    def _take_alone(self, model: str) -> Claim | None:
        name = alone_name(model)
        head = cast(bytes | None, self._redis.lindex(PREFIX + name, 0))
        return None if head is None else self._take(name, head.decode(), None)

    def _take_in_turn(self, waiting: _Waiting) -> Claim | None:
        for priority in _ORDERS.get(self._round % _ROUND, _USUAL_ORDER):
            for model in self._in_turn(waiting.by_priority[priority]):
                turn = next_turn(self._redis, model, priority)
                if turn is not None and (claim := self._take(turn.queue, turn.job_id, turn)) is not None:
                    self._round += 1
                    self._next_model = self._models.index(model) + 1
                    return claim
        return None

    def _in_turn(self, models: Sequence[str]) -> Sequence[str]:
        count = len(self._models)
        return sorted(models, key=lambda model: (self._models.index(model) - self._next_model) % count)

    def _take(self, name: str, job_id: str, turn: turns.Turn | None) -> Claim | None:
        """Take this job at the head of the queue; None when another worker was faster, or it is not to be made."""
        queue = open_queue(self._redis, name)
        with self._redis.pipeline() as pipe:
            try:
                pipe.watch(Job.key_for(job_id))
                job = self._fetch(job_id)
                record = self._store.find(job_id)
                pipe.multi()
                if job is None or record is None or queue_key(record) != queue.key:
                    pipe.lrem(queue.key, 0, job_id)
                    pipe.execute()
                    return None
                execution = self._lease(job, record, pipe)
                if turn is not None:
                    turns.charge(pipe, record.request.model, record.request.priority, turn, record.cost)
                pipe.execute()
            except WatchError:
                return None
        return Claim(record, job, queue, execution)

    def _lease(self, job: Job, record: VideoRecord, pipe: Pipeline) -> Execution:
        dequeue(pipe, record)
        execution = Execution.create(job, LEASE_SECONDS, pipeline=pipe, worker_name=self._worker)
        job.prepare_for_execution(self._worker, pipeline=pipe)
        pipe.persist(job.key)
        return execution

    def _fetch(self, job_id: str) -> Job | None:
        """The job, None when it was deleted, is another's already, or is no task of a worker."""
        try:
            job = Job.fetch(job_id, connection=self._redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return None
        if job.get_status(refresh=False) != JobStatus.QUEUED:
            return None
        # The function is named, never imported: a worker does one thing, whatever a job asks for.
        if (name := _task_name(job)) != TASK:
            logger.error("job %s names %r, which is no task of this worker: dropped", job_id, name)
            return None
        return job


def _task_name(job: Job) -> str | None:
    """The function that a job names; None when its data cannot be read."""
    try:
        return job.func_name
    except DeserializationError:
        return None
