from redis import Redis

from jobs import queue
from jobs.store import VideoStore
from jobs.turns import WAITING_KEY

from .making import make_record


def test_a_worker_empties_the_urgent_queue_first(redis: Redis, store: VideoStore) -> None:
    store.create(*(make_record(priority=priority) for priority in ("low", "normal", "high")))
    names = [found.name for found in queue.queues(redis, "tiny-text")]
    base = "framedit:tiny-text"
    assert names == [f"{base}:high", base, f"{base}:low", f"{base}:alone"]
    assert [len(found) for found in queue.queues(redis, "tiny-text")] == [1, 1, 1, 0]


def test_a_queue_s_name_tells_its_model_and_rank() -> None:
    names = ["framedit:m:alone", "framedit:m:high:key:1", "framedit:m", "framedit:m:normal:k", "framedit:m:low"]
    assert [queue.parse_name(name) for name in names] == [("m", 0), ("m", 1), ("m", 2), ("m", 2), ("m", 3)]


def test_what_waits_is_known_by_its_cost(redis: Redis, store: VideoStore) -> None:
    """However it leaves the queue: taken by a worker, cancelled, deleted."""
    kept, cancelled, deleted = (make_record().model_copy(update={"cost": cost}) for cost in (1, 20, 300))
    store.create(kept, cancelled, deleted)
    assert redis.hgetall(WAITING_KEY) == {b"framedit:tiny-text": b"321"}
    store.cancel(cancelled.id)
    assert redis.hgetall(WAITING_KEY) == {b"framedit:tiny-text": b"301"}
    store.delete(deleted.id)
    assert redis.hgetall(WAITING_KEY) == {b"framedit:tiny-text": b"1"}
    with redis.pipeline() as pipe:
        queue.dequeue(pipe, kept)
        pipe.execute()
    assert redis.hgetall(WAITING_KEY) == {b"framedit:tiny-text": b"0"}
