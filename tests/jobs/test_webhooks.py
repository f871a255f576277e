from collections.abc import Sequence

import pytest
from redis import Redis

from jobs import webhooks
from jobs.records import VideoRecord
from jobs.store import VideoStore
from jobs.webhooks import RETRY_SECONDS, WEBHOOKS_KEY, Due, Webhooks, line_key, receiver_of

from .making import make_record


@pytest.fixture
def record(store: VideoStore) -> VideoRecord:
    record = make_record(webhook_url="https://example.com/hook")
    store.create(record)
    return record


def take(redis: Redis, limit: int = 10, limit_each: int = 10, **busy: int) -> Sequence[Due]:
    return Webhooks(redis).take(limit, limit_each, busy)


def due_in(redis: Redis, record: VideoRecord) -> float:
    """The seconds until a webhook is due, and with it its receiver."""
    score = redis.zscore(line_key("example.com"), record.id)
    assert score is not None
    assert redis.zscore(WEBHOOKS_KEY, "example.com") == score
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
    assert take(redis) == [Due("example.com", record.id, 1)]


def test_ending_twice_is_told_once(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    [due] = take(redis)
    Webhooks(redis).done(due)
    store.cancel(record.id)
    store.fail(record.id, "x", "y")
    assert redis.exists(WEBHOOKS_KEY) == 0
    assert redis.keys("framedit:webhooks*") == []


def test_what_one_process_has_taken_no_other_takes(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    assert len(take(redis)) == 1
    assert take(redis) == []


def test_what_a_dead_process_had_taken_is_due_again(
    redis: Redis, store: VideoStore, record: VideoRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TAKEN_SECONDS", 0)
    store.cancel(record.id)
    assert take(redis) == [Due("example.com", record.id, 1)]
    assert take(redis) == [Due("example.com", record.id, 2)]


def test_failures_are_repeated_later_and_later_and_then_no_more(
    redis: Redis, store: VideoStore, record: VideoRecord
) -> None:
    store.cancel(record.id)
    hooks = Webhooks(redis)
    for attempt, seconds in enumerate(RETRY_SECONDS, start=1):
        [due] = take(redis)
        assert due == Due("example.com", record.id, attempt)
        assert hooks.failed(due)
        assert seconds - 2 <= due_in(redis, record) <= seconds
        assert take(redis) == []
        redis.zadd(line_key("example.com"), {record.id: 0})
        redis.zadd(WEBHOOKS_KEY, {"example.com": 0})
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
    assert receiver_of("https://example.com/a", "key_1") == "key_1@example.com"
    assert receiver_of("", "key_1") == ""
    assert receiver_of("https://Example.com:8443/a?b=c") == "example.com:8443"
    assert receiver_of("http://[::1]/a") == "[::1]"


def test_no_receiver_is_given_more_than_its_share(redis: Redis, store: VideoStore) -> None:
    slow, quick = end(store, "https://slow/hook", 20), end(store, "https://quick/hook", 2)
    first = take(redis, limit_each=3)
    assert {due.video_id for due in first if due.receiver == "quick"} == set(quick)
    assert [due.receiver for due in first].count("slow") == 3
    # What it has in hand counts, and frees no place for others of its line.
    assert take(redis, limit_each=3, slow=3) == []
    assert [due.receiver for due in take(redis, limit_each=3, slow=2)] == ["slow"]
    assert len(take(redis, limit=5, limit_each=10)) == 5
    assert [due.receiver for due in take(redis, limit=100, limit_each=100)] == ["slow"] * (len(slow) - 3 - 1 - 5)
    assert take(redis, limit=100, limit_each=100) == []


def test_those_that_can_take_no_more_hide_nobody(redis: Redis, store: VideoStore) -> None:
    for number in range(5):
        end(store, f"https://slow{number}/hook", 2)
    [last] = end(store, "https://quick/hook", 1)
    busy = {f"slow{number}": 1 for number in range(5)}
    assert [due.video_id for due in take(redis, 1, 1, **busy)] == [last]
