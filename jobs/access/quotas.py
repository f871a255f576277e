"""Quotas: unfinished and kept videos, and the cost of a day (`jobs/admission/cost.py`), of one API key and of all."""

import math
import time
from collections.abc import Sequence
from typing import cast

from redis import Redis
from redis.client import Pipeline

from jobs import redis_keys
from jobs.access.api_keys import ApiKey
from jobs.errors import InvalidRequestError, OverloadedError, RateLimitedError
from jobs.videos.record import VideoRecord

_DAY_SECONDS = 24 * 3600
# When an unfinished video ends is not known to the second.
_RETRY_IN_FLIGHT_SECONDS = 5
_RETRY_KEPT_SECONDS = 60


def videos_in_flight(redis: Redis, owner: str) -> int:
    """Return how many videos of an owner are queued or in progress."""
    return int(redis.zintercard(2, [redis_keys.UNFINISHED, redis_keys.videos_of(owner)]))


def videos_kept(redis: Redis, owner: str) -> int:
    """Return how many videos of an owner are stored."""
    return int(redis.zcard(redis_keys.videos_of(owner)))


def spent_today(redis: Redis, owner: str) -> float:
    """Return the cost of an owner's videos since midnight, UTC, as the limit counts it."""
    return float(cast(bytes, redis.get(redis_keys.cost(owner, _today())) or b"0"))


def _today() -> int:
    return int(time.time() // _DAY_SECONDS)


def check_kept(redis: Redis, owner: str | None, num_new: int, max_kept: int, max_kept_of_owner: int) -> None:
    """Check how many videos are kept, of one owner and of all. Concurrent requests may exceed a limit by their number.

    :raises RateLimitedError: for the limit of the owner.
    :raises OverloadedError: for the limit of all.
    """
    if owner is not None:
        count = videos_kept(redis, owner)
        if count + num_new > max_kept_of_owner:
            raise RateLimitedError(
                f"this API key has {count} videos, and {max_kept_of_owner} are allowed: delete some",
                _RETRY_KEPT_SECONDS,
            )
    count = redis.zcard(redis_keys.VIDEOS)
    if count + num_new > max_kept:
        raise OverloadedError(
            f"the server keeps {count} videos, and {max_kept} are allowed: delete some, or wait until some expire",
            _RETRY_KEPT_SECONDS,
        )


class KeyGuard:
    """The limits of a key on the videos that it creates, as a `Guard` of `VideoQueue.create`."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key
        self._limits = key.limits
        self._day = _today()

    def watched(self) -> Sequence[str]:
        # The number grows only with a new id of the owner. That videos end meanwhile does no harm.
        in_flight = [redis_keys.videos_of(self._key.id)] if self._limits.videos_in_flight is not None else []
        return [*in_flight, *([self._cost_key()] if self._limits.cost_per_day is not None else [])]

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """:raises RateLimitedError: above a limit now. :raises InvalidRequestError: above a limit at any time."""
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
            raise InvalidRequestError(f"n is {wanted}; this API key allows {allowed} videos in flight", "n")
        count = videos_in_flight(pipe, self._key.id)
        if count + wanted > allowed:
            raise RateLimitedError(
                f"this API key has {count} of {allowed} videos in flight: wait until one ends, or cancel one",
                _RETRY_IN_FLIGHT_SECONDS,
            )

    def _check_cost(self, pipe: Pipeline, wanted: float, allowed: float) -> None:
        if wanted > allowed:
            raise InvalidRequestError(
                f"the request costs {wanted:g}, and this API key allows {allowed:g} per day: reduce steps, frames or n"
            )
        spent = float(cast(bytes, pipe.get(self._cost_key()) or b"0"))
        if spent + wanted > allowed:
            raise RateLimitedError(
                f"the request costs {wanted:g}, and this API key has {max(0.0, allowed - spent):g} of {allowed:g} left "
                "until midnight, UTC",
                max(1, math.ceil((self._day + 1) * _DAY_SECONDS - time.time())),
            )

    def _cost_key(self) -> str:
        return redis_keys.cost(self._key.id, self._day)
