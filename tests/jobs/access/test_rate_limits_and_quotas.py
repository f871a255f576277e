import threading
import time
from typing import Any

import pytest
from redis import Redis

from jobs.access.api_keys import ApiKey, KeyLimits
from jobs.access.quotas import KeyGuard
from jobs.access.rate_limits import RateLimit, RequestLimiter
from jobs.errors import InvalidRequestError, RateLimitedError
from jobs.videos.record import new_records
from jobs.videos.store import VideoStore
from tests.jobs.making import make_record, make_request


def make_key(**limits: Any) -> ApiKey:
    return ApiKey(id="key_a", name="", scopes=("create",), limits=KeyLimits(**limits), created_at=0)


def take(limiter: RequestLimiter, key: ApiKey) -> RateLimit:
    state = limiter.take(key)
    assert state is not None
    state.check()
    return state


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


def test_a_minute_s_requests_are_accepted_and_no_more(redis: Redis) -> None:
    limiter, key = RequestLimiter(redis), make_key(requests_per_minute=3)
    states = [take(limiter, key) for _ in range(3)]
    assert [state.remaining for state in states] == [2, 1, 0]
    with pytest.raises(RateLimitedError, match="its 3 requests per minute") as caught:
        take(limiter, key)
    assert 1 <= caught.value.retry_after_seconds <= 20
    assert take(limiter, key.model_copy(update={"id": "key_b"})).headers == {
        "RateLimit-Limit": "3",
        "RateLimit-Remaining": "2",
        "RateLimit-Reset": "20",
    }
    assert redis.pttl("framedit:requests:key_a") <= 60_000


def test_requests_are_accepted_again_as_the_bucket_fills(redis: Redis) -> None:
    limiter, key = RequestLimiter(redis), make_key(requests_per_minute=3)
    for _ in range(3):
        take(limiter, key)
    # As if the last of them had been 20 seconds ago.
    redis.hincrby("framedit:requests:key_a", "at", -20_000)
    take(limiter, key)
    with pytest.raises(RateLimitedError):
        take(limiter, key)
    redis.hincrby("framedit:requests:key_a", "at", -3_600_000)
    for _ in range(3):
        take(limiter, key)
    with pytest.raises(RateLimitedError):
        take(limiter, key)


def test_concurrent_requests_do_not_exceed_the_limit(redis: Redis) -> None:
    limiter, key = RequestLimiter(redis), make_key(requests_per_minute=5)
    assert count_in_threads(12, lambda: take(limiter, key)) == 5


def test_without_limits_nothing_is_counted(redis: Redis, store: VideoStore) -> None:
    key = make_key()
    assert RequestLimiter(redis).take(key) is None
    ask(store, key, 10)
    assert KeyGuard(key).watched() == []
    assert redis.keys("framedit:requests:*") == redis.keys("framedit:cost:*") == []


def test_ended_videos_do_not_count_as_in_flight(store: VideoStore) -> None:
    key = make_key(videos_in_flight=3)
    first = ask(store, key, 2)
    with pytest.raises(RateLimitedError, match="has 2 of 3 videos in flight"):
        ask(store, key, 2)
    store.create(make_record())
    second = ask(store, key)
    assert store.start(second, "w1") is not None
    with pytest.raises(RateLimitedError):
        ask(store, key)
    store.cancel(first)
    store.delete(second)
    ask(store, key, 2)
    with pytest.raises(InvalidRequestError, match="n is 4; this API key allows 3 videos in flight"):
        ask(store, key, 4)


def test_concurrent_videos_do_not_exceed_the_limit(store: VideoStore) -> None:
    key = make_key(videos_in_flight=3, cost_per_day=10_000)
    assert count_in_threads(8, lambda: ask(store, key)) == 3
    assert len(store.list(owner=key.id).records) == 3


def test_the_cost_of_a_day_is_limited(redis: Redis, store: VideoStore) -> None:
    key = make_key(cost_per_day=100)
    ask(store, key, cost=40)
    ask(store, key, 2, cost=10)
    with pytest.raises(RateLimitedError, match="costs 60, and this API key has 40 of 100 left") as caught:
        ask(store, key, cost=60)
    assert 1 <= caught.value.retry_after_seconds <= 24 * 3600
    ask(store, key, cost=40)
    with pytest.raises(InvalidRequestError, match="costs 102, and this API key allows 100 per day"):
        ask(store, key, 2, cost=51)
    [cost_key] = redis.keys("framedit:cost:key_a:*")
    assert float(redis.get(cost_key)) == 100
    assert 0 < redis.ttl(cost_key) <= 2 * 24 * 3600
    redis.delete(cost_key)  # another day
    ask(store, key)
