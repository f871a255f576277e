"""Fair share between the owners of one model and priority, however many videos each of them queues.

This is start-time fair queueing (Goyal, Vin and Cheng 1996). Each owner's queue has a virtual time, the cost that it
has been charged. The queue with the least virtual time is served next, and charged the cost of its video. The system
virtual time is the start time of the last video served. A queue that was empty starts there, so idle time earns
nothing. Between two owners with waiting videos, the cost served never differs by more than one video of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis
from redis.client import Pipeline

from jobs import redis_keys
from jobs.lua import read_lua
from jobs.videos.record import Priority

_NEXT = read_lua(__file__, "next")


@dataclass(frozen=True)
class QueueHead:
    """The job at the head of the queue to serve next, and the virtual time of that queue."""

    queue: str
    job_id: str
    virtual_time: int


class FairShare:
    def __init__(self, redis: Redis) -> None:
        self._next = redis.register_script(_NEXT)

    def next(self, model: str, priority: Priority) -> QueueHead | None:
        """Return the head of the queue to serve next, None when no queue of this model and priority has a job."""
        keys = [redis_keys.virtual_times(model, priority), redis_keys.SYSTEM_VIRTUAL_TIMES, redis_keys.WAITING_COST]
        found = self._next(keys=keys, args=[_field(model, priority), redis_keys.queue("")])
        return None if found is None else QueueHead(found[0].decode(), found[1].decode(), int(found[2]))


def charge(pipe: Pipeline, model: str, priority: Priority, head: QueueHead, cost: int) -> None:
    """Charge a queue for the video that was taken from its head, in the caller's MULTI."""
    pipe.zadd(redis_keys.virtual_times(model, priority), {head.queue: head.virtual_time + cost})
    pipe.hset(redis_keys.SYSTEM_VIRTUAL_TIMES, _field(model, priority), str(head.virtual_time))


def read_virtual_times(redis: Redis, model: str, priorities: Sequence[str]) -> dict[str, float]:
    """Return the virtual time of each queue of a model; the queue with the least is served next."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.hmget(redis_keys.SYSTEM_VIRTUAL_TIMES, [_field(model, priority) for priority in priorities])
        for priority in priorities:
            pipe.zrange(redis_keys.virtual_times(model, priority), 0, -1, withscores=True)
        system_times, *by_priority = pipe.execute()
    return {
        name.decode(): max(float(virtual_time), float(system_time or 0))
        for system_time, queues in zip(system_times, by_priority, strict=True)
        for name, virtual_time in queues
    }


def _field(model: str, priority: str) -> str:
    return f"{model}:{priority}"
