"""The queues of RQ: three for each model, by priority. A job carries the id of a video, as JSON, and nothing else."""

from collections.abc import Sequence
from typing import cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.records import Priority, VideoRecord

TASK = "worker.tasks.generate"
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")

# RQ's own bookkeeping of jobs that have ended; what clients see is in the record.
_RESULT_TTL_SECONDS = 3600
_FAILURE_TTL_SECONDS = 7 * 24 * 3600


def queue_name(model: str, priority: Priority = "normal") -> str:
    return f"framedit:{model}" if priority == "normal" else f"framedit:{model}:{priority}"


def queues(redis: Redis, model: str) -> list[Queue]:
    """The queues of a model in the order in which a worker empties them."""
    return [Queue(queue_name(model, priority), connection=redis, serializer=JSONSerializer) for priority in PRIORITIES]


def queue_key(record: VideoRecord) -> str:
    """The Redis list that waiting jobs of this record's model and priority are in."""
    return Queue.redis_queue_namespace_prefix + queue_name(record.request.model, record.request.priority)


def job_key(record: VideoRecord) -> str:
    return Job.key_for(record.id)


def enqueue(
    redis: Redis, records: Sequence[VideoRecord], pipe: Pipeline, max_attempts: int, at_front: bool = False
) -> None:
    """Put jobs for the records on their queues, as part of the caller's MULTI in `pipe`."""
    for record in records:
        queue = Queue(queue_name(record.request.model, record.request.priority), redis, serializer=JSONSerializer)
        queue.enqueue_call(
            TASK,
            args=(record.id,),
            job_id=record.id,
            timeout=-1,  # RQ's timeout is a signal that may interrupt anything; the worker keeps its own deadlines
            result_ttl=_RESULT_TTL_SECONDS,
            failure_ttl=_FAILURE_TTL_SECONDS,
            retry=Retry(max=max_attempts - 1) if max_attempts > 1 else None,
            at_front=at_front,
            pipeline=pipe,
        )


def positions(redis: Redis, records: Sequence[VideoRecord]) -> dict[str, int]:
    """For each record that waits in a queue, its place: 1 is next. Higher priorities of the same model go before."""
    waiting = [record for record in records if record.status == "queued"]
    if not waiting:
        return {}
    with redis.pipeline(transaction=False) as pipe:
        for record in waiting:
            pipe.lpos(queue_key(record), record.id)
            for priority in PRIORITIES[: PRIORITIES.index(record.request.priority)]:
                pipe.llen(Queue.redis_queue_namespace_prefix + queue_name(record.request.model, priority))
        answers = iter(cast(list[int | None], pipe.execute()))
    places = {}
    for record in waiting:
        index = next(answers)
        ahead = sum(next(answers) or 0 for _ in range(PRIORITIES.index(record.request.priority)))
        if index is not None:
            places[record.id] = index + ahead + 1
    return places
