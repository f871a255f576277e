import threading
import time
from typing import Any

import pytest
from redis import Redis

from jobs.errors import InvalidRequestError, RateLimitedError
from jobs.keys import ApiKey, KeyLimits
from jobs.limits import KeyGuard, RequestLimiter
from jobs.records import new_records
from jobs.store import VideoStore

from .making import make_record, make_request


def make_key(**limits: Any) -> ApiKey:
    return ApiKey(id="key_a", name="", scopes=("create",), limits=KeyLimits(**limits), created_at=0)


def ask(store: VideoStore, key: ApiKey, count: int = 1, cost: int = 40) -> str:
    records = new_records(make_request(), time.time(), count, owner=key.id, cost=cost)
    store.create(*records, guards=[KeyGuard(key)])
    return records[0].id


def count_in_threads(number: int, action: Any) -> int:
    """How many of `number` concurrent actions are not refused."""
    barrier = threading.Barrier(number)
    done: list[int] = []

    def run() -> None:
        barrier.wait()
        try:
            action()
            done.append(1)
        except RateLimitedError:
            pass

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done)


def test_a_minute_s_requests_and_no_more(redis: Redis) -> None:
    limiter, key = RequestLimiter(redis), make_key(requests_per_minute=3)
    for _ in range(3):
        limiter.count(key)
    with pytest.raises(RateLimitedError, match="3 requests a minute") as caught:
        limiter.count(key)
    assert 1 <= caught.value.retry_after_seconds <= 20
    limiter.count(key.model_copy(update={"id": "key_b"}))
    assert redis.pttl("framedit:requests:key_a") <= 60_000


def test_requests_come_back_as_the_minute_goes(redis: Redis) -> None:
    limiter, key = RequestLimiter(redis), make_key(requests_per_minute=3)
    for _ in range(3):
        limiter.count(key)
    # As if the last of them had been 20 seconds ago.
    redis.hincrby("framedit:requests:key_a", "at", -20_000)
    limiter.count(key)
    with pytest.raises(RateLimitedError):
        limiter.count(key)
    redis.hincrby("framedit:requests:key_a", "at", -3_600_000)
    for _ in range(3):
        limiter.count(key)
    with pytest.raises(RateLimitedError):
        limiter.count(key)


def test_of_many_requests_at_once_as_many_pass_as_may(redis: Redis) -> None:
    limiter, key = RequestLimiter(redis), make_key(requests_per_minute=5)
    assert count_in_threads(12, lambda: limiter.count(key)) == 5


def test_without_limits_nothing_is_counted(redis: Redis, store: VideoStore) -> None:
    key = make_key()
    RequestLimiter(redis).count(key)
    ask(store, key, 10)
    assert KeyGuard(key).watched() == []
    assert redis.keys("framedit:requests:*") == redis.keys("framedit:cost:*") == []


def test_videos_in_flight_are_those_that_have_not_ended(store: VideoStore) -> None:
    key = make_key(videos_in_flight=3)
    first = ask(store, key, 2)
    with pytest.raises(RateLimitedError, match="has 2 videos in flight and may have 3"):
        ask(store, key, 2)
    store.create(make_record())
    second = ask(store, key)
    assert store.start(second, "w1") is not None
    with pytest.raises(RateLimitedError):
        ask(store, key)
    store.cancel(first)
    store.delete(second)
    ask(store, key, 2)
    with pytest.raises(InvalidRequestError, match="n is 4; this API key may have 3 videos in flight"):
        ask(store, key, 4)


def test_of_many_videos_at_once_as_many_are_accepted_as_may_be_in_flight(store: VideoStore) -> None:
    key = make_key(videos_in_flight=3, cost_per_day=10_000)
    assert count_in_threads(8, lambda: ask(store, key)) == 3
    assert len(store.list(owner=key.id).records) == 3


def test_what_was_used_of_a_day_is_gone_until_the_next(redis: Redis, store: VideoStore) -> None:
    key = make_key(cost_per_day=100)
    ask(store, key, cost=40)
    ask(store, key, 2, cost=10)
    with pytest.raises(RateLimitedError, match="costs 60, and this API key has 40 of 100 left") as caught:
        ask(store, key, cost=60)
    assert 1 <= caught.value.retry_after_seconds <= 24 * 3600
    ask(store, key, cost=40)
    with pytest.raises(InvalidRequestError, match="costs 102; this API key may use 100 a day"):
        ask(store, key, 2, cost=51)
    [cost_key] = redis.keys("framedit:cost:key_a:*")
    assert float(redis.get(cost_key)) == 100
    assert 0 < redis.ttl(cost_key) <= 2 * 24 * 3600
    redis.delete(cost_key)  # another day
    ask(store, key)
