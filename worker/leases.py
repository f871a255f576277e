"""Who is at work on what: RQ's executions, each of which lives in Redis only as long as its worker renews it."""

from typing import cast

from redis import Redis
from rq.utils import parse_composite_key

from jobs.queue import all_queues

# A video of a worker that died is back on its way after a lease, a beat and another beat: within 30 seconds.
LEASE_SECONDS = 15
BEAT_SECONDS = 4.0


def leased_jobs(redis: Redis) -> set[str]:
    """The ids of the jobs that a living worker has; forgets the leases that have ended.

    Redis itself ends a lease, by its own clock: the workers' clocks need not agree.
    """
    registries = [queue.started_job_registry.key for queue in all_queues(redis)]
    with redis.pipeline(transaction=False) as pipe:
        for key in registries:
            pipe.zrange(key, 0, -1)
        answers = cast(list[list[bytes]], pipe.execute())
    entries = [(key, raw.decode()) for key, members in zip(registries, answers, strict=True) for raw in members]
    with redis.pipeline(transaction=False) as pipe:
        for _, member in entries:
            pipe.exists(f"rq:execution:{member}")
        alive = pipe.execute()
    leased = set()
    for (key, member), is_alive in zip(entries, alive, strict=True):
        if is_alive:
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
