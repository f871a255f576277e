"""The queues of RQ: one for each model, priority and owner. A job carries a video's id, as JSON, and nothing else."""

from collections.abc import Sequence
from typing import cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs import turns
from jobs.records import Priority, VideoRecord

TASK = "worker.tasks.generate"
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
PREFIX = Queue.redis_queue_namespace_prefix

_NAME = "framedit:"
_RANKS = ("alone", *PRIORITIES)
# RQ's own bookkeeping of jobs that have ended; what clients see is in the record.
RESULT_TTL_SECONDS = 3600
FAILURE_TTL_SECONDS = 7 * 24 * 3600


def queue_name(model: str, priority: Priority = "normal", owner: str | None = None) -> str:
    if owner is not None:
        return f"{_NAME}{model}:{priority}:{owner}"
    return f"{_NAME}{model}" if priority == "normal" else f"{_NAME}{model}:{priority}"


def alone_name(model: str) -> str:
    """The queue of the videos that are made one by one: a worker died at them and others together."""
    return f"{_NAME}{model}:alone"


def name_of(record: VideoRecord) -> str:
    """The queue that the record's job waits in."""
    request = record.request
    return alone_name(request.model) if record.alone else queue_name(request.model, request.priority, record.owner)


def parse_name(name: str) -> tuple[str, int]:
    """The model of a queue, and its rank: those of a lower rank are served before."""
    _, model, kind, *_ = [*name.split(":", 3), "normal"]
    return model, _RANKS.index(kind)


def open_queue(redis: Redis, name: str) -> Queue:
    return Queue(name, connection=redis, serializer=JSONSerializer)


def queues(redis: Redis, model: str) -> list[Queue]:
    """The queues that every model has, by priority, that of the videos to be made alone last; owners' come and go."""
    names = [*(queue_name(model, priority) for priority in PRIORITIES), alone_name(model)]
    return [open_queue(redis, name) for name in names]


def all_queues(redis: Redis) -> list[Queue]:
    """Every queue that a video ever waited in."""
    names = (raw.decode().removeprefix(PREFIX) for raw in cast(set[bytes], redis.smembers(Queue.redis_queues_keys)))
    return [open_queue(redis, name) for name in sorted(names) if name.startswith(_NAME)]


def queue_key(record: VideoRecord) -> str:
    """The Redis list that the record's job waits in."""
    return PREFIX + name_of(record)


def job_key(record: VideoRecord) -> str:
    return Job.key_for(record.id)


def next_turn(redis: Redis, model: str, priority: Priority) -> turns.Turn | None:
    """The queue of this model and priority that is to be served next, None when nobody waits."""
    return turns.next_turn(redis, model, priority, PREFIX)


def enqueue(
    redis: Redis, records: Sequence[VideoRecord], pipe: Pipeline, max_attempts: int, at_front: bool = False
) -> None:
    """Put jobs for the records on their queues, as part of the caller's MULTI in `pipe`."""
    opened: dict[str, Queue] = {}
    for record in records:
        name = name_of(record)
        queue = opened.setdefault(name, open_queue(redis, name))
        queue.enqueue_call(
            TASK,
            args=(record.id,),
            job_id=record.id,
            timeout=-1,  # RQ's timeout is a signal that may interrupt anything; the worker keeps its own deadlines
            result_ttl=RESULT_TTL_SECONDS,
            failure_ttl=FAILURE_TTL_SECONDS,
            retry=Retry(max=max_attempts - 1) if max_attempts > 1 else None,
            at_front=at_front,
            pipeline=pipe,
        )
        pipe.hincrby(turns.WAITING_KEY, name, record.cost)
        if not record.alone:
            turns.join(pipe, record.request.model, record.request.priority, name)


def dequeue(pipe: Pipeline, record: VideoRecord) -> None:
    """Take the record's job off the head of its queue, as part of the caller's MULTI in `pipe`.

    Once, however often it is there (concurrent clean-ups of RQ can enqueue a job twice): to look for more would be to
    look through the whole queue. The next one to come upon a double drops it.
    """
    pipe.lrem(queue_key(record), 1, record.id)
    pipe.hincrby(turns.WAITING_KEY, name_of(record), -record.cost)
