"""Records that nobody is at work on come back on their way."""

import pytest
from redis import Redis
from rq.job import Job

from jobs.queue import alone_name, open_queue, queue_name
from jobs.records import VideoRecord
from jobs.store import VideoStore
from tests.worker.conftest import make_record
from worker.claims import Claims
from worker.leases import release_leases
from worker.maintenance import Maintenance

QUEUE = f"rq:queue:{queue_name('tiny')}"
ALONE = f"rq:queue:{alone_name('tiny')}"


@pytest.fixture
def maintenance(redis: Redis, store: VideoStore) -> Maintenance:
    return Maintenance(redis, store, max_attempts=3)


def crash(redis: Redis, store: VideoStore, name: str = "dead") -> None:
    """A worker takes the next job, starts on it, and is gone with its lease."""
    claim = Claims(redis, store, ["tiny"], name).take(idle=True)
    assert claim is not None
    assert store.start(claim.job.id, name) is not None
    release_leases(redis, name)


def queued(redis: Redis, key: str = QUEUE) -> list[str]:
    return [raw.decode() for raw in redis.lrange(key, 0, -1)]


def look_twice(maintenance: Maintenance) -> None:
    maintenance.run()
    maintenance.run()


def created(store: VideoStore) -> VideoRecord:
    record = make_record()
    store.create(record)
    return record


def test_a_dead_workers_video_is_made_alone_and_the_attempt_is_not_counted(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    record, waiting = created(store), created(store)
    crash(redis, store)
    look_twice(maintenance)
    after = store.get(record.id)
    assert (after.status, after.attempts, after.worker, after.alone) == ("queued", 0, None, True)
    assert (queued(redis, ALONE), queued(redis)) == ([record.id], [waiting.id])


def test_what_is_seen_once_is_left_alone(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    """After an outage of Redis the leases have ended of workers that are well, and about to come back."""
    record = created(store)
    crash(redis, store)
    maintenance.run()
    assert store.get(record.id).status == "in_progress"


def test_a_worker_known_to_be_dead_is_not_waited_for(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    record = created(store)
    assert Claims(redis, store, ["tiny"], "dead-1").take(idle=True) is not None
    assert store.start(record.id, "dead-1") is not None
    maintenance.recover_worker("other")
    assert store.get(record.id).status == "in_progress"
    maintenance.recover_worker("dead-")
    assert queued(redis, ALONE) == [record.id]


def test_a_living_workers_video_is_left_alone(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    record = created(store)
    assert Claims(redis, store, ["tiny"], "w1").take(idle=True) is not None
    assert store.start(record.id, "w1") is not None
    look_twice(maintenance)
    assert store.wanted(record.id, "w1")
    assert store.get(record.id).attempts == 1


def test_after_max_attempts_alone_it_has_failed_with_the_reason(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    record = created(store)
    for death in range(4):
        assert store.get(record.id).attempts == max(0, death - 1)
        crash(redis, store, f"dead-{death}")
        look_twice(maintenance)
    after = store.get(record.id)
    assert after.error is not None
    assert (after.status, after.error.code) == ("failed", "worker_lost")
    assert after.error.message == "the worker ended while it was making this video, 3 times"
    assert queued(redis, ALONE) == []
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


def test_ended_jobs_are_forgotten_when_their_time_is_over(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    created(store)
    queue = open_queue(redis, queue_name("tiny"))
    redis.zadd(queue.finished_job_registry.key, {"old": 1, "new": 9e9})
    redis.zadd(queue.failed_job_registry.key, {"old": 1, "new": 9e9})
    maintenance.run()
    for registry in (queue.finished_job_registry, queue.failed_job_registry):
        assert redis.zrange(registry.key, 0, -1) == [b"new"]


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
    look_twice(maintenance)
    assert (store.get(record.id).status, queued(redis, ALONE)) == ("queued", [record.id])
    # What is left of it on its old queue is nobody's to take.
    claims = Claims(redis, store, ["tiny"], "w2")
    claim = claims.take(idle=True)
    assert claim is not None
    assert claim.record.id == record.id
    assert claims.take(idle=True) is None


def test_two_workers_doing_it_do_no_more_than_one(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    record = created(store)
    crash(redis, store)
    other = Maintenance(redis, store, max_attempts=3)
    for each in (maintenance, other, maintenance, other):
        each.run()
    assert queued(redis, ALONE) == [record.id]
    assert store.get(record.id).attempts == 0
