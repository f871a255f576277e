"""Records that nobody is at work on come back on their way."""

import itertools
import threading
import time

import pytest
from redis import Redis
from rq.job import Job

from jobs.connection import connect
from jobs.queue import all_queues, alone_name, forget_if_empty, name_of, open_queue, queue_name
from jobs.records import Timings, VideoRecord, new_records
from jobs.store import VideoStore
from tests.worker.conftest import make_record, make_request
from worker.claims import Claims
from worker.leases import release_leases
from worker.maintenance import Maintenance
from worker.queue_worker import VideoWorker
from worker.tasks import Ending

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
    for death in range(3):
        assert store.get(record.id).status == "queued"
        crash(redis, store, f"dead-{death}")
        look_twice(maintenance)
    after = store.get(record.id)
    assert after.error is not None
    assert (after.status, after.error.code) == ("failed", "worker_lost")
    assert after.error.message == "the worker ended while it was making this video, 3 times"
    assert queued(redis, ALONE) == []
    assert not redis.exists(Job.key_for(record.id))


@pytest.mark.parametrize("max_attempts", [2, 3, 5])
def test_a_poison_kills_so_many_workers_and_its_neighbours_are_not_charged(
    redis: Redis, store: VideoStore, max_attempts: int
) -> None:
    """A worker dies at all of them together, and from then on at one of them alone."""
    maintenance = Maintenance(redis, store, max_attempts)
    neighbours = created(store), created(store)
    poison = created(store)
    claims = Claims(redis, store, ["tiny"], "dead-0")
    for _ in range(3):
        claim = claims.take(idle=False)
        assert claim is not None
        store.start(claim.job.id, "dead-0")
    release_leases(redis, "dead-0")
    look_twice(maintenance)
    deaths = 1
    while (claim := Claims(redis, store, ["tiny"], f"next-{deaths}").take(idle=True)) is not None:
        assert store.start(claim.job.id, f"next-{deaths}") is not None
        if claim.record.id == poison.id:
            release_leases(redis, f"next-{deaths}")
            look_twice(maintenance)
            deaths += 1
        else:
            assert store.get(claim.record.id).attempts == 1
            assert store.complete(claim.record.id, {}, Timings(), f"next-{deaths}")
    assert deaths == max_attempts
    error = store.get(poison.id).error
    assert error is not None
    assert error.message == f"the worker ended while it was making this video, {deaths} times"
    assert [store.get(record.id).status for record in neighbours] == ["completed", "completed"]


def test_what_many_workers_had_comes_back_by_age(redis: Redis, store: VideoStore, maintenance: Maintenance) -> None:
    records = [created(store) for _ in range(6)]
    for name in ("dead-1", "dead-2") * 3:
        crash(redis, store, name)
    look_twice(maintenance)
    assert queued(redis, ALONE) == [record.id for record in records]


@pytest.mark.parametrize("waiting", [0, 2])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_is_handed_back_stays_in_front_and_by_age(
    redis: Redis, store: VideoStore, order: tuple[int, ...], waiting: int
) -> None:
    records = [created(store) for _ in range(3 + waiting)]
    claims = Claims(redis, store, ["tiny"], "w1")
    for _ in range(3):
        claim = claims.take(idle=False)
        assert claim is not None
        store.start(claim.job.id, "w1")
    for index in order:
        assert store.requeue(records[index].id, "w1", used_attempt=False)
    assert queued(redis) == [record.id for record in records]


def test_an_owners_queue_is_forgotten_once_nothing_of_it_is_left(
    redis: Redis, store: VideoStore, maintenance: Maintenance
) -> None:
    record = make_record().model_copy(update={"owner": "key_1"})
    owned = open_queue(redis, name_of(record))

    def known() -> bool:
        maintenance._forget_ended_jobs()
        return owned in all_queues(redis)

    store.create(record, make_record())
    assert known()  # it waits
    claims = Claims(redis, store, ["tiny"], "w1")
    worker = VideoWorker(redis, ["tiny"], "w1")
    for claim in (claims.take(idle=False), claims.take(idle=False)):
        assert claim is not None
        worker.took(claim)
        assert known()  # it is at work
        worker.ended(claim, Ending.FINISHED)
    assert known()  # it is remembered
    redis.delete(owned.finished_job_registry.key)
    assert not known()
    assert open_queue(redis, queue_name("tiny")) in all_queues(redis)
    store.create(new_records(make_request(), time.time(), owner="key_1")[0])
    assert known()


def test_an_owners_queue_is_not_forgotten_beneath_what_comes(redis: Redis, redis_url: str, store: VideoStore) -> None:
    """Many are put into queues that are empty, and taken out again, while those are forgotten as fast as can be."""
    over = threading.Event()

    def forget() -> None:
        with connect(redis_url) as own:
            while not over.is_set():
                for queue in all_queues(own):
                    forget_if_empty(queue)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for _ in range(200):
            record = new_records(make_request(), time.time(), owner="key_1")[0]
            store.create(record)
            assert open_queue(redis, name_of(record)) in all_queues(redis)
            store.delete(record.id)
    finally:
        over.set()
        thread.join()


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
