"""Claims, leases and the end of jobs, against a real server; the tasks are functions of the tests."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from jobs.queue import TASK, queue_name
from jobs.store import VideoStore
from tests.worker.conftest import make_record
from worker.leases import LEASE_SECONDS, leased_jobs, release_leases
from worker.queue_worker import VideoWorker


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """As they were before a worker took them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def worker_for(redis: Redis, task: Callable[[str], None], *models: str, name: str = "w1") -> VideoWorker:
    return VideoWorker(redis, models or ["tiny"], name, {TASK: task}, on_beat=lambda: None)


def run(redis: Redis, *models: str) -> list[str]:
    """The ids of the jobs in the order in which a worker ran them."""
    ran: list[str] = []
    worker_for(redis, ran.append, *models).work(burst=True)
    return ran


def nothing_left(redis: Redis) -> bool:
    return not [
        key for kind in ("job", "wip", "execution*", "worker:*:executions") for key in redis.keys(f"rq:{kind}:*")
    ]


def test_jobs_run_in_order_higher_priorities_first_and_leave_nothing(redis: Redis, store: VideoStore) -> None:
    records = [make_record(priority=priority) for priority in ("low", "normal", "high", "normal")]
    store.create(*records)
    assert run(redis) == [records[index].id for index in (2, 1, 3, 0)]
    assert nothing_left(redis)


def test_models_take_turns(redis: Redis, store: VideoStore) -> None:
    first, second = ([make_record(model=model) for _ in range(3)] for model in ("a", "b"))
    store.create(*first, *second)
    expected = [record.id for pair in zip(first, second, strict=True) for record in pair]
    assert run(redis, "a", "b") == expected


def test_other_models_are_left_alone(redis: Redis, store: VideoStore) -> None:
    store.create(make_record(model="other"))
    assert run(redis) == []
    assert redis.llen(f"rq:queue:{queue_name('other')}") == 1


def test_while_it_runs_a_job_is_leased_to_its_worker(redis: Redis, store: VideoStore) -> None:
    record = make_record()
    store.create(record)
    seen = []

    def look(job_id: str) -> None:
        [worker] = BaseWorker.all(redis, serializer=JSONSerializer)
        [execution] = worker.get_current_executions()
        seen.append((leased_jobs(redis), worker.get_state(), execution.job_id))
        assert 0 < redis.ttl(execution.key) <= LEASE_SECONDS
        assert redis.ttl(Job.key_for(job_id)) == -1

    worker_for(redis, look).work(burst=True)
    assert seen == [({record.id}, "busy", record.id)]
    assert leased_jobs(redis) == set()


def test_a_beat_renews_the_lease_and_a_forgotten_registration(redis: Redis, store: VideoStore) -> None:
    store.create(make_record())
    renewed = []

    def beat(_: str) -> None:
        [key] = redis.keys("rq:execution:*")
        redis.expire(key, 1)
        redis.delete(worker.key)
        worker.beat()
        renewed.append((redis.ttl(key), redis.hget(worker.key, "queues") is not None, redis.ttl(worker.key) > 0))

    worker = worker_for(redis, beat)
    worker.work(burst=True)
    assert renewed == [(LEASE_SECONDS, True, True)]


def test_a_lease_ends_by_itself_or_when_it_is_released_by_name(redis: Redis, store: VideoStore) -> None:
    store.create(make_record())

    def look(job_id: str) -> None:
        assert release_leases(redis, "somebody else") == 0
        assert leased_jobs(redis) == {job_id}
        assert release_leases(redis, "w") == 1
        assert leased_jobs(redis) == set()

    assert worker_for(redis, look).work(burst=True)


@pytest.mark.parametrize("spoil", ["deleted", "taken", "doubled"])
def test_entries_of_the_queue_without_a_waiting_job_are_dropped(redis: Redis, store: VideoStore, spoil: str) -> None:
    record, healthy = make_record(), make_record()
    store.create(record, healthy)
    if spoil == "deleted":
        redis.delete(Job.key_for(record.id))
    elif spoil == "taken":
        redis.hset(Job.key_for(record.id), "status", "started")
    else:
        redis.rpush(f"rq:queue:{queue_name('tiny')}", record.id)
    expected = [record.id, healthy.id] if spoil == "doubled" else [healthy.id]
    assert run(redis) == expected
    assert redis.llen(f"rq:queue:{queue_name('tiny')}") == 0


def test_a_function_that_is_no_task_is_never_imported(
    redis: Redis, store: VideoStore, caplog: pytest.LogCaptureFixture
) -> None:
    record = make_record()
    store.create(record)
    Queue(queue_name("tiny"), connection=redis, serializer=JSONSerializer).enqueue("os.abort", job_id=record.id)
    assert run(redis) == []
    assert "'os.abort', which is no task of this worker" in caplog.text


@pytest.mark.parametrize("data", [b"nonsense", b"\x80\x04\x95", json.dumps([1, 2]).encode()])
def test_a_job_that_cannot_be_read_stops_nobody(redis: Redis, store: VideoStore, data: bytes) -> None:
    record, healthy = make_record(), make_record()
    store.create(record, healthy)
    redis.hset(Job.key_for(record.id), "data", data)
    assert run(redis) == [healthy.id]


def test_a_job_that_raises_stops_nobody(redis: Redis, store: VideoStore, caplog: pytest.LogCaptureFixture) -> None:
    store.create(make_record(), make_record())
    ran: list[str] = []

    def fail(job_id: str) -> None:
        ran.append(job_id)
        raise RuntimeError("out of luck")

    worker_for(redis, fail).work(burst=True)
    assert len(ran) == 2
    assert caplog.text.count("RuntimeError: out of luck") == 2
    assert nothing_left(redis)


def test_a_job_enqueued_again_while_it_ran_is_not_lost(redis: Redis, store: VideoStore) -> None:
    record = make_record()
    store.create(record)
    ran = []

    def hand_back_once(job_id: str) -> None:
        ran.append(job_id)
        if len(ran) == 1:
            assert store.start(job_id, "w1") is not None
            assert store.requeue(job_id, "w1")

    worker_for(redis, hand_back_once).work(burst=True)
    assert ran == [record.id, record.id]
    assert nothing_left(redis)


def test_two_workers_never_get_the_same_job(redis: Redis, store: VideoStore) -> None:
    store.create(*[make_record() for _ in range(4)])
    ran: list[tuple[str, str]] = []
    other = worker_for(redis, lambda job_id: ran.append(("w2", job_id)), name="w2")

    def let_the_other_work(job_id: str) -> None:
        ran.append(("w1", job_id))
        if len(ran) == 1:
            other.work(burst=True)

    worker_for(redis, let_the_other_work).work(burst=True)
    assert [name for name, _ in ran] == ["w1", "w2", "w2", "w2"]
    assert len({job_id for _, job_id in ran}) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_present_job(redis: Redis, store: VideoStore, number: signal.Signals) -> None:
    records = [make_record(), make_record()]
    store.create(*records)
    ran = []

    def stop(job_id: str) -> None:
        os.kill(os.getpid(), number)
        assert worker.stop_requested
        ran.append(job_id)

    worker = worker_for(redis, stop)
    worker.work()
    assert ran == [records[0].id]
    assert BaseWorker.all(redis, serializer=JSONSerializer) == []


def test_beats_go_on_while_the_main_thread_is_busy(redis: Redis, store: VideoStore) -> None:
    store.create(make_record())
    beats: list[float] = []

    def wait_for_beats(_: str) -> None:
        deadline = time.monotonic() + 10
        while len(beats) < 1 and time.monotonic() < deadline:
            time.sleep(0.01)

    VideoWorker(redis, ["tiny"], "w1", {TASK: wait_for_beats}, lambda: beats.append(time.monotonic())).work(burst=True)
    assert beats


def test_an_execution_of_a_deleted_job_can_be_ended(redis: Redis, store: VideoStore) -> None:
    record = make_record()
    store.create(record)

    def delete(job_id: str) -> None:
        store.start(job_id, "w1")
        store.delete(job_id)
        redis.delete(Job.key_for(job_id))

    assert worker_for(redis, delete).work(burst=True)
    assert nothing_left(redis)
    assert not redis.exists(Execution("x", record.id, redis).key)
