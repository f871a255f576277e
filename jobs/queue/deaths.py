"""Facts about dead workers: the videos that they did not work on, and the time of death."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.connection import server_time
from jobs.videos.record import VideoRecord

# Workers that die within this time of each other are victims of their machine.
MACHINE_FAULT_SECONDS = 10.0

_REMEMBER_SECONDS = 24 * 3600
_BYSTANDERS_TTL_SECONDS = 3600


@dataclass(frozen=True)
class Bystanders:
    """The videos of a worker that were neither in a pass nor being prepared when it last published them.

    Attributes:
        idle: Have completed a step before.
        unstarted: Have not. Such a video can be the cause of a death if its preparation or first pass killed the worker
            at once.
    """

    idle: frozenset[str] = frozenset()
    unstarted: frozenset[str] = frozenset()

    def is_suspect(self, record: VideoRecord) -> bool:
        """Return whether a video of the worker can have caused its death."""
        if record.id in self.unstarted:
            return record.alone or record.deaths > 0
        return record.id not in self.idle


def publish_bystanders(redis: Redis, worker: str, bystanders: Bystanders) -> None:
    key = redis_keys.bystanders(worker)
    if bystanders == Bystanders():
        redis.delete(key)
        return
    lists = {"idle": sorted(bystanders.idle), "unstarted": sorted(bystanders.unstarted)}
    redis.set(key, json.dumps(lists), ex=_BYSTANDERS_TTL_SECONDS)


def read_bystanders(redis: Redis, worker: str) -> Bystanders:
    """Return what a worker has published last, nothing if that has expired."""
    raw = cast(bytes | None, redis.get(redis_keys.bystanders(worker)))
    if raw is None:
        return Bystanders()
    lists = json.loads(raw)
    return Bystanders(frozenset(lists["idle"]), frozenset(lists["unstarted"]))


def forget_bystanders(redis: Redis, worker: str) -> None:
    redis.delete(redis_keys.bystanders(worker))


def record_death(redis: Redis, worker: str) -> None:
    """Record that a worker died now, at work on videos outside of quarantine."""
    now = server_time(redis)
    redis.zadd(redis_keys.DEATHS, {worker: now})
    redis.zremrangebyscore(redis_keys.DEATHS, "-inf", now - _REMEMBER_SECONDS)


def died_with(redis: Redis, worker: str) -> Sequence[str]:
    """Return the other workers that died within `MACHINE_FAULT_SECONDS` of a recorded death."""
    died_at = redis.zscore(redis_keys.DEATHS, worker)
    if died_at is None:
        return []
    first, last = died_at - MACHINE_FAULT_SECONDS, died_at + MACHINE_FAULT_SECONDS
    found = cast(list[bytes], redis.zrange(redis_keys.DEATHS, first, last, byscore=True))
    return [name for raw in found if (name := raw.decode()) != worker]


def revoke_death(redis: Redis, worker: str) -> bool:
    """Forget the death of a worker that is alive. Returns whether one was recorded."""
    return bool(redis.zrem(redis_keys.DEATHS, worker))
