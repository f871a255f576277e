"""What one API key may use: requests a minute, videos in flight, cost (`jobs/cost.py`) a day."""

import math
import time
from collections.abc import Sequence
from typing import cast

from redis import Redis
from redis.client import Pipeline

from jobs.errors import InvalidRequestError, RateLimitedError
from jobs.keys import ApiKey
from jobs.records import VideoRecord
from jobs.store import UNFINISHED_KEY, owned_key

_DAY_SECONDS = 24 * 3600
# A seat becomes free when a video ends, which nobody knows to the second.
_RETRY_IN_FLIGHT_SECONDS = 5

# A bucket of a minute's tokens, filled as fast as a minute fills it, by Redis's clock, which the servers share.
# KEYS: bucket. ARGV: tokens a minute. Answers the milliseconds until the next token, 0 when one was taken.
_TAKE = """
local capacity = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(kept[1]) or capacity
tokens = math.min(capacity, tokens + math.max(0, now - (tonumber(kept[2]) or now)) * capacity / 60000)
if tokens < 1 then return math.ceil((1 - tokens) * 60000 / capacity) end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - 1), 'at', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return 0
"""


class RequestLimiter:
    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)

    def count(self, key: ApiKey) -> None:
        """Count one request. A minute's worth may come at once, after that as fast as they are allowed.

        :raises RateLimitedError: when there is none left.
        """
        allowed = key.limits.requests_per_minute
        if allowed is None:
            return
        wait_ms = cast(int, self._take(keys=[f"framedit:requests:{key.id}"], args=[allowed]))
        if wait_ms > 0:
            raise RateLimitedError(
                f"this API key is allowed {allowed} requests a minute, and has had them", math.ceil(wait_ms / 1000)
            )


class KeyGuard:
    """The limits of a key on the videos that it asks for, as a `Guard` of `VideoStore.create`."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key
        self._limits = key.limits
        self._day = int(time.time() // _DAY_SECONDS)

    def watched(self) -> Sequence[str]:
        # More of them come to be in flight only with a new id among the owner's; that some end does no harm.
        in_flight = [owned_key(self._key.id)] if self._limits.videos_in_flight is not None else []
        return [*in_flight, *([self._cost_key()] if self._limits.cost_per_day is not None else [])]

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """:raises RateLimitedError: what is too much now; InvalidRequestError: what always will be."""
        if self._limits.videos_in_flight is not None:
            self._check_in_flight(pipe, len(records), self._limits.videos_in_flight)
        if self._limits.cost_per_day is not None:
            self._check_cost(pipe, sum(record.cost for record in records), self._limits.cost_per_day)

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        if self._limits.cost_per_day is not None:
            pipe.incrbyfloat(self._cost_key(), sum(record.cost for record in records))
            pipe.expire(self._cost_key(), 2 * _DAY_SECONDS)

    def _check_in_flight(self, pipe: Pipeline, wanted: int, allowed: int) -> None:
        if wanted > allowed:
            raise InvalidRequestError(f"n is {wanted}; this API key may have {allowed} videos in flight", "n")
        count = pipe.zintercard(2, [UNFINISHED_KEY, owned_key(self._key.id)])
        if count + wanted > allowed:
            raise RateLimitedError(
                f"this API key has {count} videos in flight and may have {allowed}: wait until one ends, or cancel one",
                _RETRY_IN_FLIGHT_SECONDS,
            )

    def _check_cost(self, pipe: Pipeline, wanted: float, allowed: float) -> None:
        if wanted > allowed:
            raise InvalidRequestError(
                f"this costs {wanted:g}; this API key may use {allowed:g} a day: ask for fewer steps, frames or videos"
            )
        spent = float(cast(bytes, pipe.get(self._cost_key()) or b"0"))
        if spent + wanted > allowed:
            raise RateLimitedError(
                f"this costs {wanted:g}, and this API key has {max(0.0, allowed - spent):g} of {allowed:g} left "
                "until midnight, UTC",
                max(1, math.ceil((self._day + 1) * _DAY_SECONDS - time.time())),
            )

    def _cost_key(self) -> str:
        return f"framedit:cost:{self._key.id}:{self._day}"
