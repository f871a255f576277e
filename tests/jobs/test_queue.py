from redis import Redis

from jobs import queue
from jobs.store import VideoStore

from .making import make_record


def test_places_count_the_jobs_that_go_before(redis: Redis, store: VideoStore) -> None:
    records = [make_record(priority=priority) for priority in ("normal", "low", "normal", "high")]
    other_model = make_record(model="other")
    store.create(*records, other_model)
    first, low, second, high = (record.id for record in records)
    assert queue.positions(redis, [*records, other_model]) == {first: 2, low: 4, second: 3, high: 1, other_model.id: 1}


def test_a_started_video_has_no_place(redis: Redis, store: VideoStore) -> None:
    record = make_record()
    store.create(record)
    started = store.start(record.id, "w1")
    assert started is not None
    assert queue.positions(redis, [started]) == {}


def test_a_worker_empties_the_urgent_queue_first(redis: Redis, store: VideoStore) -> None:
    store.create(*(make_record(priority=priority) for priority in ("low", "normal", "high")))
    names = [found.name for found in queue.queues(redis, "tiny-text")]
    assert names == ["framedit:tiny-text:high", "framedit:tiny-text", "framedit:tiny-text:low"]
    assert all(len(found) == 1 for found in queue.queues(redis, "tiny-text"))
