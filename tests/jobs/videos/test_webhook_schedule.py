import time
from collections.abc import Sequence

import pytest
from redis import Redis

from jobs import redis_keys
from jobs.videos import webhook_schedule
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from jobs.videos.webhook_schedule import RETRY_SECONDS, Due, Webhooks, receiver_of
from tests.jobs.making import make_record


@pytest.fixture
def record(store: VideoStore) -> VideoRecord:
    record = make_record(webhook_url="https://example.com/hook")
    store.create(record)
    return record


def take(redis: Redis, limit: int = 10, limit_each: int = 10, limit_owner: int = 100, **sending: int) -> Sequence[Due]:
    return Webhooks(redis).take(limit, limit_each, limit_owner, sending)


def due_in(redis: Redis, record: VideoRecord) -> float:
    """The seconds until a webhook is due, and with it its receiver."""
    score = redis.zscore(redis_keys.webhooks_to("example.com:443"), record.id)
    assert score is not None
    assert redis.zscore(redis_keys.WEBHOOKS, "example.com:443") == score
    return float(score) - redis.time()[0]


def test_a_video_that_ends_has_its_webhook_due(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    silent = make_record()
    store.create(silent)
    store.start(record.id, "w1")
    store.progress(record.id, 1, 20, "w1")
    store.requeue(record.id, "w1")
    assert take(redis) == []
    store.cancel(silent.id)
    store.fail(record.id, "x", "y")
    assert take(redis) == [Due("example.com:443", record.id, 1)]


def test_ending_twice_publishes_one_event(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    [due] = take(redis)
    Webhooks(redis).done(due)
    store.cancel(record.id)
    store.fail(record.id, "x", "y")
    assert redis.exists(redis_keys.WEBHOOKS) == 0
    assert redis.keys("framedit:webhooks*") == []


def test_a_webhook_is_taken_by_one_process(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    assert len(take(redis)) == 1
    assert take(redis) == []


def test_webhooks_of_a_dead_process_are_due_again(
    redis: Redis, store: VideoStore, record: VideoRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_schedule, "SENDING_SECONDS", 0)
    store.cancel(record.id)
    assert take(redis) == [Due("example.com:443", record.id, 1)]
    [due] = take(redis)
    assert due == Due("example.com:443", record.id, 1)  # the process died, so it counts for nothing
    assert Webhooks(redis).failed(due)
    assert due_in(redis, record) <= RETRY_SECONDS[0]


def test_a_result_that_comes_late_leaves_no_count_behind(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    [due] = take(redis)
    Webhooks(redis).done(due)
    assert Webhooks(redis).failed(due)
    assert redis.keys("framedit:webhooks*") == []


def test_failures_are_repeated_later_and_later_and_then_no_more(
    redis: Redis, store: VideoStore, record: VideoRecord
) -> None:
    store.cancel(record.id)
    hooks = Webhooks(redis)
    for attempt, seconds in enumerate(RETRY_SECONDS, start=1):
        [due] = take(redis)
        assert due == Due("example.com:443", record.id, attempt)
        assert hooks.failed(due)
        assert seconds - 2 <= due_in(redis, record) <= seconds
        assert take(redis) == []
        redis.zadd(redis_keys.webhooks_to("example.com:443"), {record.id: 0})
        redis.zadd(redis_keys.WEBHOOKS, {"example.com:443": 0})
    [last] = take(redis)
    assert not hooks.failed(last)
    assert redis.keys("framedit:webhooks*") == []


def end(store: VideoStore, webhook_url: str, count: int) -> list[str]:
    """The ids of videos that have ended, the first one first."""
    records = [make_record(webhook_url=webhook_url) for _ in range(count)]
    store.create(*records)
    for record in records:
        store.cancel(record.id)
    return [record.id for record in records]


def test_a_receiver_is_a_host_and_its_port_and_each_owner_has_its_own() -> None:
    assert receiver_of("https://example.com/a", "key_1") == "key_1@example.com:443"
    assert receiver_of("", "key_1") == ""
    assert receiver_of("https://Example.com:8443/a?b=c") == "example.com:8443"
    for other in ("http://EXAMPLE.com:80/b", "http://example.com.:0080", "http://example.com:00080/"):
        assert receiver_of(other) == receiver_of("http://example.com")
    assert receiver_of("http://[::1]/a") == "::1:80"


def test_no_receiver_is_given_more_than_its_share(redis: Redis, store: VideoStore) -> None:
    slow, quick = end(store, "https://slow/hook", 20), end(store, "https://quick/hook", 2)
    first = take(redis, limit_each=3)
    assert {due.video_id for due in first if due.receiver == "quick:443"} == set(quick)
    assert [due.receiver for due in first].count("slow:443") == 3
    # What it has in hand counts, and frees no place for others of its line.
    assert take(redis, limit_each=3, **{"slow:443": 3}) == []
    assert [due.receiver for due in take(redis, limit_each=3, **{"slow:443": 2})] == ["slow:443"]
    assert len(take(redis, limit=5, limit_each=10)) == 5
    assert [due.receiver for due in take(redis, limit=100, limit_each=100)] == ["slow:443"] * (len(slow) - 3 - 1 - 5)
    assert take(redis, limit=100, limit_each=100) == []


def test_busy_receivers_do_not_hide_the_others(redis: Redis, store: VideoStore) -> None:
    for number in range(5):
        end(store, f"https://slow{number}/hook", 2)
    [last] = end(store, "https://quick/hook", 1)
    busy = {f"slow{number}:443": 1 for number in range(5)}
    assert [due.video_id for due in take(redis, 1, 1, **busy)] == [last]


def test_no_owner_is_given_more_than_its_share(redis: Redis, store: VideoStore) -> None:
    for number in range(30):
        record = make_record(webhook_url=f"https://receiver{number}/").model_copy(update={"owner": "key_a"})
        store.create(record)
        store.cancel(record.id)
    other = make_record(webhook_url="https://receiver0/").model_copy(update={"owner": "key_b"})
    store.create(other)
    store.cancel(other.id)
    taken = take(redis, limit=20, limit_owner=5)
    assert [due.receiver.partition("@")[0] for due in taken] == ["key_a"] * 5 + ["key_b"]
    sending = {due.receiver: 1 for due in taken}
    assert take(redis, limit=20, limit_owner=5, **sending) == []


def test_the_longest_due_are_taken_first(redis: Redis, store: VideoStore) -> None:
    records = [make_record(webhook_url=f"https://{name}/") for name in ("zebra", "lion", "ant")]
    store.create(*records)
    for record in records:
        store.cancel(record.id)
        time.sleep(1.1)
    assert [due.video_id for due in take(redis, limit=3)] == [record.id for record in records]
