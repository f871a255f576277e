import pytest
from redis import Redis

from jobs import webhooks
from jobs.records import VideoRecord
from jobs.store import VideoStore
from jobs.webhooks import RETRY_SECONDS, WEBHOOKS_KEY, Due, Webhooks

from .making import make_record


@pytest.fixture
def record(store: VideoStore) -> VideoRecord:
    record = make_record(webhook_url="https://example.com/hook")
    store.create(record)
    return record


def due_in(redis: Redis, record: VideoRecord) -> float:
    score = redis.zscore(WEBHOOKS_KEY, record.id)
    assert score is not None
    return float(score) - redis.time()[0]


def test_a_video_that_ends_has_its_webhook_due(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    silent = make_record()
    store.create(silent)
    store.start(record.id, "w1")
    store.progress(record.id, 1, 20, "w1")
    store.requeue(record.id, "w1")
    assert Webhooks(redis).take(10) == []
    store.cancel(silent.id)
    store.fail(record.id, "x", "y")
    assert Webhooks(redis).take(10) == [Due(record.id, 1)]


def test_ending_twice_is_told_once(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    [due] = Webhooks(redis).take(10)
    Webhooks(redis).done(due)
    store.cancel(record.id)
    store.fail(record.id, "x", "y")
    assert redis.exists(WEBHOOKS_KEY) == 0
    assert redis.keys("framedit:webhooks*") == []


def test_what_one_process_has_taken_no_other_takes(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.cancel(record.id)
    assert len(Webhooks(redis).take(10)) == 1
    assert Webhooks(redis).take(10) == []


def test_what_a_dead_process_had_taken_is_due_again(
    redis: Redis, store: VideoStore, record: VideoRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TAKEN_SECONDS", 0)
    store.cancel(record.id)
    assert Webhooks(redis).take(10) == [Due(record.id, 1)]
    assert Webhooks(redis).take(10) == [Due(record.id, 2)]


def test_failures_are_repeated_later_and_later_and_then_no_more(
    redis: Redis, store: VideoStore, record: VideoRecord
) -> None:
    store.cancel(record.id)
    hooks = Webhooks(redis)
    for attempt, seconds in enumerate(RETRY_SECONDS, start=1):
        [due] = hooks.take(10)
        assert due == Due(record.id, attempt)
        assert hooks.failed(due)
        assert seconds - 2 <= due_in(redis, record) <= seconds
        assert hooks.take(10) == []
        redis.zadd(WEBHOOKS_KEY, {record.id: 0})
    [last] = hooks.take(10)
    assert not hooks.failed(last)
    assert redis.keys("framedit:webhooks*") == []
