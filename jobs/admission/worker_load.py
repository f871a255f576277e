"""The load and the speed of each worker: workers publish them, and wait times are estimated from them."""

import json
from collections.abc import Mapping
from typing import Literal, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from redis import Redis

from jobs import redis_keys
from jobs.connection import server_time

ModelState = Literal["loaded", "loading", "unloaded"]


class Remaining(BaseModel):
    """The cost that is left of a video in progress."""

    model_config = ConfigDict(frozen=True)

    model: str
    cost: float


class WorkerLoad(BaseModel):
    """The load of one worker. Only measured speeds are in it.

    Attributes:
        cost_per_second: Speed by model, with the whole worker for that model.
        remaining: The videos in progress, by id.
        free_slots: How many more videos the worker would claim now.
        finishing_seconds: Time to decode and encode a video, by model.
        models: Whether each of the models that the worker serves is in its memory.
        refused_adapters: Why adapter folders of the worker are not served, by name.
    """

    model_config = ConfigDict(frozen=True)

    cost_per_second: dict[str, float]
    remaining: dict[str, Remaining] = {}
    # `free_seats` in Redis, as version 0.1 wrote and reads it.
    free_slots: int = Field(
        default=0, validation_alias=AliasChoices("free_slots", "free_seats"), serialization_alias="free_seats"
    )
    finishing_seconds: dict[str, float] = {}
    models: dict[str, ModelState] = {}
    refused_adapters: dict[str, str] = {}


def publish_load(redis: Redis, worker: str, load: WorkerLoad, ttl_seconds: float) -> None:
    """Publish a worker's load. Repeat it well within `ttl_seconds`."""
    entry = json.dumps({"until": server_time(redis) + ttl_seconds, "load": load.model_dump(by_alias=True)})
    redis.hset(redis_keys.WORKER_LOADS, worker, entry)


def withdraw_load(redis: Redis, worker: str) -> None:
    redis.hdel(redis_keys.WORKER_LOADS, worker)


def read_loads(redis: Redis) -> Mapping[str, WorkerLoad]:
    """Return the loads by worker, and forget those that have expired."""
    entries = cast(dict[bytes, bytes], redis.hgetall(redis_keys.WORKER_LOADS))
    if not entries:
        return {}
    now = server_time(redis)
    parsed = {name.decode(): json.loads(raw) for name, raw in entries.items()}
    expired = [name for name, entry in parsed.items() if entry["until"] <= now]
    if expired:
        redis.hdel(redis_keys.WORKER_LOADS, *expired)
    return {name: WorkerLoad.model_validate(entry["load"]) for name, entry in parsed.items() if name not in expired}
