"""Rate limits: requests per minute of one API key. `server/http/address_limits.py` limits clients without a key."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.access.api_keys import ApiKey
from jobs.errors import RateLimitedError
from jobs.lua import ALLOW_OOM, read_lua

_TAKE_TOKEN = ALLOW_OOM + read_lua(__file__, "take_token")


@dataclass(frozen=True)
class RateLimit:
    """The state of a rate limit after one request: a bucket that holds a minute's requests and fills in a minute.

    Attributes:
        limit: Requests per minute.
        remaining: Requests that would be accepted now.
        wait_seconds: Until the next request is accepted; 0 when this one was.
        refusal: The message of a refusal.
    """

    limit: int
    remaining: int
    wait_seconds: int
    refusal: str

    def check(self) -> None:
        """:raises RateLimitedError: when the request was above the limit."""
        if self.wait_seconds > 0:
            raise RateLimitedError(self.refusal, self.wait_seconds)

    @property
    def headers(self) -> Mapping[str, str]:
        """The three headers of the IETF draft up to its version 07, which most clients read."""
        reset_seconds = math.ceil((self.limit - self.remaining) * 60 / self.limit)
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(reset_seconds),
        }


class RequestLimiter:
    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE_TOKEN)

    def take(self, key: ApiKey) -> RateLimit | None:
        """Count one request, and return the state of the key's rate limit, None without one.

        A minute's requests may arrive at once; further ones are accepted at the rate of the limit.
        """
        allowed = key.limits.requests_per_minute
        if allowed is None:
            return None
        wait_ms, remaining = cast(list[int], self._take(keys=[redis_keys.requests(key.id)], args=[allowed]))
        refusal = f"this API key has used its {allowed} requests per minute; wait, or ask for a higher limit"
        return RateLimit(allowed, remaining, math.ceil(wait_ms / 1000), refusal)
