"""What each worker has at hand and how fast it is: published by the workers, read to tell waits."""

import json
from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel, ConfigDict
from redis import Redis

from jobs.connection import server_time

_LOADS_KEY = "framedit:loads"


class Remaining(BaseModel):
    """What is left to be done of a video that a worker has."""

    model_config = ConfigDict(frozen=True)

    model: str
    cost: float


class Load(BaseModel):
    """A worker's. `cost_per_second` is what it does of each model when it works for nothing else, `finishing_seconds`
    what decoding and encoding a video of it take; only what is measured is in them. `free_seats` is how many more
    videos it would take now."""

    model_config = ConfigDict(frozen=True)

    cost_per_second: dict[str, float]
    remaining: dict[str, Remaining] = {}
    free_seats: int = 0
    finishing_seconds: dict[str, float] = {}


def publish_load(redis: Redis, worker: str, load: Load, ttl_seconds: float) -> None:
    """To be repeated well within `ttl_seconds`."""
    entry = json.dumps({"until": server_time(redis) + ttl_seconds, "load": load.model_dump()})
    redis.hset(_LOADS_KEY, worker, entry)


def withdraw_load(redis: Redis, worker: str) -> None:
    redis.hdel(_LOADS_KEY, worker)


def read_loads(redis: Redis) -> Mapping[str, Load]:
    """The loads of the workers that have published theirs within their time; forgets those of the others."""
    entries = cast(dict[bytes, bytes], redis.hgetall(_LOADS_KEY))
    if not entries:
        return {}
    now = server_time(redis)
    parsed = {name.decode(): json.loads(raw) for name, raw in entries.items()}
    gone = [name for name, entry in parsed.items() if entry["until"] <= now]
    if gone:
        redis.hdel(_LOADS_KEY, *gone)
    return {name: Load.model_validate(entry["load"]) for name, entry in parsed.items() if name not in gone}
