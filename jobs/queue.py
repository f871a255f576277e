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

# KEYS: queue. ARGV: the id at its head, which goes behind those before it that are older. Those that were handed back
# are older than what was never taken, so all of them stay at the front, by age, in whichever order they come.
_BY_AGE = """
redis.call('LPOP', KEYS[1])
local others = redis.call('LRANGE', KEYS[1], 0, 999)
for _, other in ipairs(others) do
  if other > ARGV[1] then return redis.call('LINSERT', KEYS[1], 'BEFORE', other, ARGV[1]) end
end
if not others[1] then return redis.call('RPUSH', KEYS[1], ARGV[1]) end
return redis.call('LINSERT', KEYS[1], 'AFTER', others[#others], ARGV[1])
"""

# KEYS: the set of queues, a queue, and where else a job of it may be. Answers 1 when nothing was there.
_FORGET = """
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
return redis.call('SREM', KEYS[1], KEYS[2])
"""


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
    """Every queue that a video waited in, without those that were forgotten."""
    names = (raw.decode().removeprefix(PREFIX) for raw in cast(set[bytes], redis.smembers(Queue.redis_queues_keys)))
    return [open_queue(redis, name) for name in sorted(names) if name.startswith(_NAME)]


def forget_if_empty(queue: Queue) -> bool:
    """Let go of an owner's queue when nothing waits in it, runs or is remembered; whether that was so.

    One that a video is put into in the same moment stays, or comes back with it. The queues that every model has stay.
    """
    if len(queue.name.split(":")) < 4:
        return False
    registries = (
        queue.started_job_registry,
        queue.finished_job_registry,
        queue.failed_job_registry,
        queue.canceled_job_registry,
        queue.deferred_job_registry,
        queue.scheduled_job_registry,
    )
    keys = [Queue.redis_queues_keys, queue.key, *(registry.key for registry in registries)]
    return bool(queue.connection.eval(_FORGET, len(keys), *keys))


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
    """Put jobs for the records on their queues, as part of the caller's MULTI in `pipe`; at the front by their age."""
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
        if at_front:
            pipe.eval(_BY_AGE, 1, queue.key, record.id)
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
