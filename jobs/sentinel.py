"""Redis behind Sentinel: URLs that name the sentinels, and clients that follow the primary.

`redis+sentinel://user:password@host:26379,host:26379/name/0`, or `rediss+sentinel://` with TLS to all of them. The
parameters of other URLs of Redis are allowed, and `sentinel_password` where the sentinels want one of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis import Redis
from redis.connection import parse_url

_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_PORT = 26379


def is_sentinel_url(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


@dataclass(frozen=True)
class SentinelUrl:
    """`service` is the name under which the sentinels know the primary. The options are redis-py's."""

    sentinels: Sequence[tuple[str, int]]
    service: str
    options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Parse a URL of Sentinel.

    :raises ValueError: for a URL that names no sentinel or no service.
    """
    # urlsplit refuses IPv6 addresses in a list.
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, at, addresses = authority.rpartition("@")
    service, _, database = path.strip("/").partition("/")
    if not addresses or not service:
        raise ValueError("a URL of Sentinel is redis+sentinel://:password@host:26379,host:26379/name/0")
    # redis-py parses everything but the addresses.
    options = parse_url(f"{_SCHEMES[scheme]}://{credentials}{at}sentinel/{database}?{query}")
    del options["host"]
    options["ssl"] = options.pop("connection_class", None) is not None
    sentinel_options = {name: value for name, value in options.items() if name.startswith("ssl")}
    if (password := options.pop("sentinel_password", None)) is not None:
        sentinel_options["password"] = password
    return SentinelUrl([_address(text) for text in addresses.split(",")], service, options, sentinel_options)


def follow(url: str, **options: Any) -> Redis:
    """Return a client of the primary; `options` are for the connections to it and to the sentinels."""
    parsed = parse_sentinel_url(url)
    sentinel = redis.sentinel.Sentinel(
        parsed.sentinels, sentinel_kwargs={**parsed.sentinel_options, **options}, **parsed.options, **options
    )
    client: Redis = sentinel.master_for(parsed.service, redis_class=_Follower)
    return client


def follow_async(url: str, pool_options: Mapping[str, Any], **options: Any) -> redis.asyncio.Redis:
    """Return a client for an event loop; `pool_options` are for its `BlockingConnectionPool`."""
    parsed = parse_sentinel_url(url)
    sentinel = redis.asyncio.sentinel.Sentinel(
        parsed.sentinels, sentinel_kwargs={**parsed.sentinel_options, **options}, **parsed.options, **options
    )
    client: redis.asyncio.Redis = sentinel.master_for(
        parsed.service, redis_class=_AsyncFollower, connection_pool_class=_AsyncPool, **pool_options
    )
    return client


class _Follower(Redis):
    """A client that also closes the connections to the sentinels, which redis-py leaves to its caller."""

    def close(self) -> None:
        super().close()
        cast(redis.sentinel.SentinelConnectionPool, self.connection_pool).sentinel_manager.close()


class _AsyncPool(redis.asyncio.sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """Connections to the primary; concurrent commands wait for one."""


class _AsyncFollower(redis.asyncio.Redis):
    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool = cast(redis.asyncio.sentinel.SentinelConnectionPool, self.connection_pool)
        await pool.sentinel_manager.aclose()


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or _PORT
