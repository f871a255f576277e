from redis import Redis

from jobs import redis_keys
from jobs.queue.claim import Claims
from jobs.queue.rq_adapter import queues_of
from jobs.videos.store import VideoStore
from tests.jobs.making import make_record


def test_each_priority_has_a_queue(redis: Redis, store: VideoStore) -> None:
    store.create(*(make_record(priority=priority) for priority in ("low", "normal", "high")))
    base = "framedit:tiny-text"
    assert queues_of("tiny-text") == [f"{base}:high", base, f"{base}:low", f"{base}:alone"]
    assert [redis.llen(redis_keys.queue(name)) for name in queues_of("tiny-text")] == [1, 1, 1, 0]


def test_the_name_of_a_queue_contains_model_and_priority() -> None:
    names = ["framedit:m:alone", "framedit:m:high:key:1", "framedit:m", "framedit:m:normal:k", "framedit:m:low"]
    assert {redis_keys.model_of(name) for name in names} == {"m"}
    assert [redis_keys.priority_of(name) for name in names] == [None, "high", "normal", "normal", "low"]


def test_the_cost_of_queued_videos_is_known(redis: Redis, store: VideoStore) -> None:
    """However it leaves the queue: taken by a worker, cancelled, deleted."""
    kept, cancelled, deleted = (make_record().model_copy(update={"cost": cost}) for cost in (1, 20, 300))
    store.create(kept, cancelled, deleted)
    assert redis.hgetall(redis_keys.WAITING_COST) == {b"framedit:tiny-text": b"321"}
    store.cancel(cancelled.id)
    assert redis.hgetall(redis_keys.WAITING_COST) == {b"framedit:tiny-text": b"301"}
    store.delete(deleted.id)
    assert redis.hgetall(redis_keys.WAITING_COST) == {b"framedit:tiny-text": b"1"}
    assert Claims(redis, store, ["tiny-text"], "w1").take() is not None
    assert redis.hgetall(redis_keys.WAITING_COST) == {b"framedit:tiny-text": b"0"}
