"""The connection to Redis, the same in the server and in the workers."""

import redis.asyncio
from redis import Redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, timeout_seconds: float = 5.0) -> Redis:
    """A client that raises at once when Redis is away, rather than retrying out of sight.

    A command is never sent twice: when an answer is lost it is not known whether the command took effect, and only the
    caller can tell whether it may be repeated. Idle connections that broke are replaced before they are used.

    :raises ValueError: for a URL that is not `redis://`, `rediss://` or `unix://`.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 2.0),
        health_check_interval=30,
        retry=Retry(NoBackoff(), 0),
    )


def connect_async(url: str, timeout_seconds: float = 5.0) -> redis.asyncio.Redis:
    """The same for an event loop. Nothing is sent before it is used."""
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 2.0),
        health_check_interval=30,
        retry=AsyncRetry(NoBackoff(), 0),
    )


def server_time(redis: Redis) -> float:
    """The time by Redis's clock, in Unix seconds: the clocks of workers and servers need not agree."""
    seconds, microseconds = redis.time()
    return float(seconds + microseconds / 1e6)
