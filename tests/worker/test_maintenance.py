"""Records that nobody is at work on come back on their way."""

import pytest
from redis import Redis
from rq.job import Job

from jobs.queue import TASK, queue_name
from jobs.records import VideoRecord
from jobs.store import VideoStore
from tests.worker.conftest import make_record
from worker.leases import release_leases
from worker.maintenance import Maintenance
from worker.queue_worker import VideoWorker

QUEUE = f"rq:queue:{queue_name('tiny')}"


@pytest.fixture
def maintenance(redis: Redis, store: VideoStore) -> Maintenance:
    return Maintenance(redis, store, max_attempts=3)


def crash(redis: Redis, store: VideoStore, name: str = "dead") -> None:
    """A worker takes the next job, starts on it, and is gone with its lease."""
    worker = VideoWorker(redis, ["tiny"], name, {}, on_beat=lambda: None)
    claim = worker._claim()
    assert claim is not None
    assert store.start(claim.job.id, name) is not None
    release_leases(redis, name)


def queued(redis: Redis) -> list[str]:
    return [raw.decode() for raw in redis.lrange(QUEUE, 0, -1)]


def created(store: VideoStore) -> VideoRecord:
    record = make_record()
    store.create(record)
    return record


def test_a_dead_workers_video_goes_to_the_head_of_the_queue(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    record, waiting = created(store), created(store)
    crash(redis, store)
    maintenance.run()
    after = store.get(record.id)
    assert (after.status, after.attempts, after.worker) == ("queued", 1, None)
    assert queued(redis) == [record.id, waiting.id]


def test_a_living_workers_video_is_left_alone(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    record = created(store)

    def look(job_id: str) -> None:
        store.start(job_id, "w1")
        maintenance.run()
        assert store.wanted(job_id, "w1")

    assert VideoWorker(redis, ["tiny"], "w1", {TASK: look}, lambda: None).work(burst=True)
    assert store.get(record.id).attempts == 1


def test_after_max_attempts_it_has_failed_with_the_reason(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    record = created(store)
    for attempt in (1, 2, 3):
        crash(redis, store, f"dead-{attempt}")
        maintenance.run()
    after = store.get(record.id)
    assert after.error is not None
    assert (after.status, after.error.code) == ("failed", "worker_lost")
    assert after.error.message == "the worker ended while it was making this video, 3 times"
    assert queued(redis) == []
    assert not redis.exists(Job.key_for(record.id))


def test_a_queued_record_without_a_job_gets_one_when_seen_twice(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    lost, waiting = created(store), created(store)
    redis.lrem(QUEUE, 0, lost.id)
    redis.delete(Job.key_for(lost.id))
    maintenance.run()
    assert queued(redis) == [waiting.id]
    maintenance.run()
    assert queued(redis) == [lost.id, waiting.id]
    maintenance.run()
    assert queued(redis) == [lost.id, waiting.id]


def test_a_long_queue_is_read_at_once(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    """Redis searches a list from its head: a search for each record would hold up everybody, heartbeats too."""
    store.create(*[make_record() for _ in range(20)])
    redis.config_resetstat()
    maintenance.run()
    calls = redis.info("commandstats")
    assert calls["cmdstat_lrange"]["calls"] == 1
    assert "cmdstat_lpos" not in calls


def test_a_job_that_rq_itself_put_back_is_recovered_too(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    """`rq info` and other tools clean up RQ's registry as they read it, and know nothing of our records."""
    record = created(store)
    crash(redis, store)
    redis.rpush(QUEUE, record.id)
    redis.hset(Job.key_for(record.id), "status", "queued")
    maintenance.run()
    assert queued(redis) == [record.id]
    assert store.get(record.id).status == "queued"


def test_two_workers_doing_it_do_no_more_than_one(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    record = created(store)
    crash(redis, store)
    maintenance.run()
    Maintenance(redis, store, max_attempts=3).run()
    assert queued(redis) == [record.id]
    assert store.get(record.id).attempts == 1
