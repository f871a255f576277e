"""Who is at work on what: RQ's executions, each of which lives in Redis only as long as its worker renews it."""

from collections.abc import Iterable
from typing import cast

from redis import Redis
from rq.executions import Execution
from rq.queue import Queue
from rq.utils import parse_composite_key

LEASE_SECONDS = 20
BEAT_SECONDS = 5.0


def leased_jobs(redis: Redis, queues: Iterable[Queue]) -> set[str]:
    """The ids of the jobs of these queues that a living worker has; forgets the leases that have ended.

    Redis itself ends a lease, by its own clock: the workers' clocks need not agree.
    """
    leased = set()
    for queue in queues:
        key = queue.started_job_registry.key
        members = [member.decode() for member in cast(list[bytes], redis.zrange(key, 0, -1))]
        executions = [Execution.from_composite_key(member, redis) for member in members]
        for member, execution in zip(members, executions, strict=True):
            if redis.exists(execution.key):
                leased.add(parse_composite_key(member)[0])
            else:
                redis.zrem(key, member)
    return leased


def release_leases(redis: Redis, worker_prefix: str) -> int:
    """End the leases of workers known to be dead, by the start of their names, without waiting; how many there were."""
    released = 0
    for key in redis.scan_iter("rq:execution:*", count=1000):
        name = cast(bytes | None, redis.hget(key, "worker_name")) or b""
        if name.decode().startswith(worker_prefix):
            released += redis.delete(key)
    return released
