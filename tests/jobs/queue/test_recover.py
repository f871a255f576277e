"""Videos whose worker or job was lost are queued again."""

import importlib
import itertools
import math
import threading
import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from jobs import redis_keys
from jobs.cards import announce
from jobs.connection import connect
from jobs.queue import rq_adapter
from jobs.queue.claim import Claims
from jobs.queue.deaths import Bystanders, publish_bystanders
from jobs.queue.recover import Recovery
from jobs.queue.rq_adapter import Ending, VideoWorker, forget_if_empty, queue_names, release_leases
from jobs.queue.transitions import queue_of
from jobs.redis_keys import quarantine_queue_name, queue_name
from jobs.videos.record import Timings, VideoRecord, new_records
from jobs.videos.store import VideoStore
from tests.tiny_checkpoint import tiny_card
from tests.worker.conftest import make_record, make_request

QUEUE = f"rq:queue:{queue_name('tiny')}"
QUARANTINE = f"rq:queue:{quarantine_queue_name('tiny')}"


@pytest.fixture
def recovery(redis: Redis, store: VideoStore) -> Recovery:
    return Recovery(redis, store, max_attempts=3)


def crash(redis: Redis, store: VideoStore, name: str = "dead") -> None:
    """A worker takes the next job, starts on it, and is gone with its lease."""
    claim = Claims(redis, store, ["tiny"], name).take()
    assert claim is not None
    assert store.start(claim.record.id, name) is not None
    release_leases(redis, name)


def queued(redis: Redis, key: str = QUEUE) -> list[str]:
    return [raw.decode() for raw in redis.lrange(key, 0, -1)]


def run_twice(recovery: Recovery) -> None:
    recovery.run()
    recovery.run()


def created(store: VideoStore) -> VideoRecord:
    record = make_record()
    store.create(record)
    return record


def test_a_dead_workers_video_goes_into_quarantine_and_the_attempt_is_not_counted(
    redis: Redis, store: VideoStore, recovery: Recovery
) -> None:
    record, waiting = created(store), created(store)
    crash(redis, store)
    run_twice(recovery)
    after = store.get(record.id)
    assert (after.status, after.attempts, after.worker, after.alone) == ("queued", 0, None, True)
    assert (queued(redis, QUARANTINE), queued(redis)) == ([record.id], [waiting.id])


def test_a_video_seen_once_without_a_lease_is_not_requeued(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    """After an outage of Redis the leases have ended of workers that are well, and about to come back."""
    record = created(store)
    crash(redis, store)
    recovery.run()
    assert store.get(record.id).status == "in_progress"


def test_a_worker_known_to_be_dead_is_not_waited_for(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    record = created(store)
    assert Claims(redis, store, ["tiny"], "dead-1").take() is not None
    assert store.start(record.id, "dead-1") is not None
    recovery.recover_worker("other")
    assert store.get(record.id).status == "in_progress"
    recovery.recover_worker("dead-")
    assert queued(redis, QUARANTINE) == [record.id]


def test_a_living_workers_video_is_left_alone(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    record = created(store)
    assert Claims(redis, store, ["tiny"], "w1").take() is not None
    assert store.start(record.id, "w1") is not None
    run_twice(recovery)
    assert store.wanted(record.id, "w1")
    assert store.get(record.id).attempts == 1


def test_after_max_attempts_alone_it_has_failed_with_the_reason(
    redis: Redis, store: VideoStore, recovery: Recovery
) -> None:
    record = created(store)
    for death in range(3):
        assert store.get(record.id).status == "queued"
        crash(redis, store, f"dead-{death}")
        run_twice(recovery)
    after = store.get(record.id)
    assert after.error is not None
    assert (after.status, after.error.code) == ("failed", "worker_lost")
    assert after.error.message == "the worker ended while it was making this video, 3 times"
    assert queued(redis, QUARANTINE) == []
    assert not redis.exists(Job.key_for(record.id))


def start_all(redis: Redis, store: VideoStore, worker: str, count: int) -> list[VideoRecord]:
    """A worker claims and starts up to so many jobs."""
    claims = Claims(redis, store, ["tiny"], worker)
    taken = [claim.record for _ in range(count) if (claim := claims.take()) is not None]
    started = [store.start(record.id, worker) for record in taken]
    assert None not in started
    return [record for record in started if record is not None]


def die(redis: Redis, recovery: Recovery, *workers: str) -> None:
    for worker in workers:
        release_leases(redis, worker)
    run_twice(recovery)


@pytest.mark.parametrize(("max_attempts", "num_videos"), [(1, 1), (2, 2), (3, 5), (5, 8), (2, 16)])
def test_bisection_finds_the_request_that_kills_workers(
    redis: Redis, store: VideoStore, max_attempts: int, num_videos: int
) -> None:
    recovery = Recovery(redis, store, max_attempts)
    records = [created(store) for _ in range(num_videos)]
    poison = records[num_videos // 3]
    deaths = 0
    for worker in map("worker-{}".format, range(100)):
        started = start_all(redis, store, worker, num_videos)
        if not started:
            break
        # A pass: of the group with the poison if the worker has it, else of any group.
        group = next((record for record in started if record.id == poison.id), started[0]).quarantine_group
        members = {record.id for record in started if record.quarantine_group == group}
        outside = {record.id for record in started} - members
        publish_bystanders(redis, worker, Bystanders(idle=frozenset(outside)))
        if poison.id in members:
            deaths += 1
            die(redis, recovery, worker)
        else:
            for record in started:
                assert store.complete(record.id, {}, Timings(), worker)
    statuses = {record.id: store.get(record.id).status for record in records}
    assert statuses.pop(poison.id) == "failed"
    assert set(statuses.values()) <= {"completed"}
    error = store.get(poison.id).error
    assert error is not None
    assert error.message == f"the worker ended while it was making this video, {deaths} times"
    assert deaths == max(2, max_attempts, 2 + math.ceil(math.log2(num_videos)) - (num_videos > 1))
    assert not redis.exists(Job.key_for(poison.id))


def test_videos_outside_of_the_fatal_pass_are_queued_at_their_places(
    redis: Redis, store: VideoStore, recovery: Recovery
) -> None:
    records = [created(store) for _ in range(5)]
    start_all(redis, store, "dead", 4)
    publish_bystanders(redis, "dead", Bystanders(frozenset([records[0].id]), frozenset([records[3].id])))
    die(redis, recovery, "dead")
    assert queued(redis) == [records[0].id, records[3].id, records[4].id]
    assert queued(redis, QUARANTINE) == [records[1].id, records[2].id]
    groups = [store.get(record.id).quarantine_group for record in records]
    assert groups == [None, "dead:0", "dead:1", None, None]
    assert [store.get(record.id).attempts for record in records] == [0] * 5


def test_an_unstarted_video_is_a_suspect_the_second_time(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    """Its first pass can kill the worker before the dispatcher has published that it started."""
    unstarted = created(store)
    for worker, where in (("dead-1", QUEUE), ("dead-2", QUARANTINE)):
        start_all(redis, store, worker, 1)
        publish_bystanders(redis, worker, Bystanders(unstarted=frozenset([unstarted.id])))
        die(redis, recovery, worker)
        assert queued(redis, where) == [unstarted.id]
    assert store.get(unstarted.id).attempts == 0


def test_a_fault_of_the_machine_puts_nothing_into_quarantine(
    redis: Redis, store: VideoStore, recovery: Recovery
) -> None:
    records = [created(store) for _ in range(6)]
    start_all(redis, store, "dead-1", 2)
    start_all(redis, store, "dead-2", 2)
    start_all(redis, store, "dead-3", 2)
    die(redis, recovery, "dead-1")  # nothing else is known yet
    assert queued(redis, QUARANTINE) == [record.id for record in records[:2]]
    die(redis, recovery, "dead-2", "dead-3")
    assert (queued(redis, QUARANTINE), queued(redis)) == ([], [record.id for record in records])
    assert redis.hgetall(redis_keys.WAITING_COST) == {
        queue_name("tiny").encode(): b"600",
        quarantine_queue_name("tiny").encode(): b"0",
    }


def test_a_second_death_is_not_excused_by_the_machine(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    records = [created(store) for _ in range(2)]
    for workers in (("dead-1", "dead-2"), ("dead-3", "dead-4")):
        for worker in workers:
            start_all(redis, store, worker, 1)
        die(redis, recovery, *workers)
    assert queued(redis, QUARANTINE) == [record.id for record in records]


def test_a_worker_that_was_only_frozen_clears_its_videos(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    waiting, in_progress = created(store), created(store)
    start_all(redis, store, "frozen", 2)
    die(redis, recovery, "frozen")
    assert queued(redis, QUARANTINE) == [waiting.id, in_progress.id]
    redis.lrem(QUARANTINE, 0, waiting.id)
    redis.rpush(QUARANTINE, waiting.id)
    assert [record.id for record in start_all(redis, store, "other", 1)] == [in_progress.id]
    recovery.revoke_death("frozen")
    recovery.revoke_death("frozen")
    assert (queued(redis, QUARANTINE), queued(redis)) == ([], [waiting.id])
    for record in (waiting, in_progress):
        after = store.get(record.id)
        assert (after.alone, after.quarantine, after.deaths) == (False, None, 0)
    assert store.get(in_progress.id).status == "in_progress"


def test_only_one_worker_recovers_at_a_time(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    record = created(store)
    crash(redis, store)
    recovery.run()
    redis.set(redis_keys.maintenance("recovery"), 1)
    recovery.run()
    assert store.get(record.id).status == "in_progress"
    redis.delete(redis_keys.maintenance("recovery"))
    recovery.run()
    assert store.get(record.id).status == "queued"


def test_videos_of_many_dead_workers_are_queued_by_age(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    records = [created(store) for _ in range(6)]
    for name in ("dead-1", "dead-2") * 3:
        crash(redis, store, name)
    run_twice(recovery)
    assert queued(redis) == [record.id for record in records]


@pytest.mark.parametrize("waiting", [0, 2])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_released_videos_go_to_the_front_by_age(
    redis: Redis, store: VideoStore, order: tuple[int, ...], waiting: int
) -> None:
    records = [created(store) for _ in range(3 + waiting)]
    claims = Claims(redis, store, ["tiny"], "w1")
    for _ in range(3):
        claim = claims.take()
        assert claim is not None
        store.start(claim.record.id, "w1")
    for index in order:
        assert store.release(records[index].id, "w1", used_attempt=False)
    assert queued(redis) == [record.id for record in records]


def test_an_owners_queue_is_forgotten_once_nothing_of_it_is_left(
    redis: Redis, store: VideoStore, recovery: Recovery
) -> None:
    record = make_record().model_copy(update={"owner": "key_1"})
    owned = queue_of(record)

    def known() -> bool:
        recovery.clean_up()
        return owned in queue_names(redis)

    store.create(record, make_record())
    assert known()  # it waits
    claims = Claims(redis, store, ["tiny"], "w1")
    worker = VideoWorker(redis, ["tiny"], "w1")
    for claim in (claims.take(), claims.take()):
        assert claim is not None
        worker.hold(claim.lease)
        assert known()  # it is at work
        worker.end(claim.lease, Ending.FINISHED)
    assert known()  # it is remembered
    redis.delete(Queue(owned, connection=redis).finished_job_registry.key)
    assert not known()
    assert queue_name("tiny") in queue_names(redis)
    store.create(new_records(make_request(), time.time(), owner="key_1")[0])
    assert known()


def test_an_owners_queue_survives_concurrent_enqueues(redis: Redis, redis_url: str, store: VideoStore) -> None:
    """Many are put into queues that are empty, and taken out again, while those are forgotten as fast as can be."""
    over = threading.Event()

    def forget() -> None:
        with connect(redis_url) as own:
            while not over.is_set():
                for queue in queue_names(own):
                    forget_if_empty(own, queue)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for _ in range(200):
            record = new_records(make_request(), time.time(), owner="key_1")[0]
            store.create(record)
            assert queue_of(record) in queue_names(redis)
            store.delete(record.id)
    finally:
        over.set()
        thread.join()


def test_a_queued_record_without_a_job_gets_one_when_seen_twice(
    redis: Redis, store: VideoStore, recovery: Recovery
) -> None:
    lost, waiting = created(store), created(store)
    redis.lrem(QUEUE, 0, lost.id)
    redis.delete(Job.key_for(lost.id))
    recovery.run()
    assert queued(redis) == [waiting.id]
    recovery.run()
    assert queued(redis) == [lost.id, waiting.id]
    recovery.run()
    assert queued(redis) == [lost.id, waiting.id]


def test_ended_jobs_are_forgotten_when_their_time_is_over(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    created(store)
    queue = Queue(queue_name("tiny"), connection=redis)
    redis.zadd(queue.finished_job_registry.key, {"old": 1, "new": 9e9})
    redis.zadd(queue.failed_job_registry.key, {"old": 1, "new": 9e9})
    recovery.run()
    for registry in (queue.finished_job_registry, queue.failed_job_registry):
        assert redis.zrange(registry.key, 0, -1) == [b"new"]


def test_a_long_queue_is_read_at_once(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    """Redis searches a list from its head: a search for each record would hold up everybody, heartbeats too."""
    store.create(*[make_record() for _ in range(20)])
    recovery.run()  # with the clean-up that is due every minute
    redis.config_resetstat()
    recovery.run()
    calls = redis.info("commandstats")
    assert calls["cmdstat_lrange"]["calls"] == 1
    assert "cmdstat_lpos" not in calls


def test_a_job_that_rq_itself_put_back_is_recovered_too(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    """`rq info` and other tools clean up RQ's registry as they read it, and know nothing of our records."""
    record = created(store)
    crash(redis, store)
    redis.rpush(QUEUE, record.id)
    redis.hset(Job.key_for(record.id), "status", "queued")
    run_twice(recovery)
    assert (store.get(record.id).status, queued(redis, QUARANTINE)) == ("queued", [record.id])
    # What is left of it on its old queue is nobody's to take.
    claims = Claims(redis, store, ["tiny"], "w2")
    claim = claims.take()
    assert claim is not None
    assert claim.record.id == record.id
    assert claims.take() is None


def test_two_workers_doing_it_do_no_more_than_one(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    record = created(store)
    crash(redis, store)
    other = Recovery(redis, store, max_attempts=3)
    for each in (recovery, other, recovery, other):
        each.run()
    assert queued(redis, QUARANTINE) == [record.id]
    assert store.get(record.id).attempts == 0


def test_two_workers_requeueing_one_video_count_its_cost_once(redis: Redis, store: VideoStore) -> None:
    """Each read the record before the other one wrote: one saw it in progress, the other queued and without a job."""
    record = created(store)
    crash(redis, store)
    in_progress = store.get(record.id)
    assert store.requeue(record.id, "dead", changes={"alone": True})
    queued_again = store.get(record.id)
    assert not store.enqueue_again(queued_again)
    assert not store.requeue(in_progress.id, "dead", changes={"alone": True})
    assert queued(redis, QUARANTINE) == [record.id]
    assert redis.hget(redis_keys.WAITING_COST, quarantine_queue_name("tiny")) == b"100"


def test_a_wrong_waiting_cost_is_corrected(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    created(store)
    created(store)
    redis.hset(
        redis_keys.WAITING_COST, mapping={queue_name("tiny"): 777, quarantine_queue_name("tiny"): 5, "framedit:x": 3}
    )
    recovery.clean_up()
    assert redis.hgetall(redis_keys.WAITING_COST) == {queue_name("tiny").encode(): b"200"}


@pytest.mark.parametrize("end", ["delete", "cancel"])
def test_the_job_of_a_dead_worker_s_video_expires_when_the_video_is_over(
    redis: Redis, store: VideoStore, end: str
) -> None:
    record = created(store)
    crash(redis, store)
    assert redis.ttl(Job.key_for(record.id)) == -1
    getattr(store, end)(record.id)
    assert 0 < redis.ttl(Job.key_for(record.id)) <= 3600


def test_dead_workers_are_struck_off_rq_s_lists(redis: Redis, store: VideoStore, recovery: Recovery) -> None:
    announce(redis, tiny_card(), "w1", ttl_seconds=60)
    workers = [VideoWorker(redis, ["tiny"], name) for name in ("alive", "dead")]
    for worker in workers:
        worker.beat()
    redis.delete(workers[1].key)
    recovery.clean_up()
    alive = {workers[0].key.encode()}
    assert [redis.smembers(key) for key in redis.scan_iter("rq:workers*")] == [alive] * 5


def test_the_function_that_rq_shows_says_how_to_run_a_worker() -> None:
    module, _, name = rq_adapter.TASK.rpartition(".")
    with pytest.raises(RuntimeError, match="start a worker with `framedit worker`"):
        getattr(importlib.import_module(module), name)("video_1")
