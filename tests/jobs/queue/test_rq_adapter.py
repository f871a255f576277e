"""A worker and its jobs in RQ's own tools."""

import json
import signal
from collections.abc import Iterable

import pytest
from redis import Redis
from rq import Queue
from rq.command import send_shutdown_command, send_stop_job_command
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from jobs.queue.claim import Claim, Claims
from jobs.queue.lease import LEASE_SECONDS
from jobs.queue.rq_adapter import Ending, VideoWorker, leased_jobs, release_leases
from jobs.redis_keys import queue_name
from jobs.videos.store import VideoStore
from tests.worker.conftest import make_record, wait_for

QUEUE = queue_name("tiny")


@pytest.fixture
def worker(redis: Redis) -> Iterable[VideoWorker]:
    worker = VideoWorker(redis, ["tiny"], "w1")
    worker.beat()
    yield worker
    worker.sign_off()


def take(redis: Redis, store: VideoStore, worker: VideoWorker) -> Claim:
    claim = Claims(redis, store, ["tiny"], worker.name).take()
    assert claim is not None
    worker.hold(claim.lease)
    return claim


def rq_queue(redis: Redis) -> Queue:
    return Queue(QUEUE, connection=redis, serializer=JSONSerializer)


def job(redis: Redis, video_id: str) -> Job:
    return Job.fetch(video_id, connection=redis, serializer=JSONSerializer)


def nothing_left(redis: Redis) -> bool:
    return not [
        key for kind in ("job", "wip", "execution*", "worker:*:executions") for key in redis.keys(f"rq:{kind}:*")
    ]


def test_while_it_runs_a_job_is_leased_to_its_worker(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    take(redis, store, worker)
    worker.show_state(suspended=False)
    [seen] = BaseWorker.all(redis, serializer=JSONSerializer)
    [execution] = seen.get_current_executions()
    assert (leased_jobs(redis), seen.get_state(), execution.job_id) == ({record.id}, "busy", record.id)
    assert 0 < redis.ttl(execution.key) <= LEASE_SECONDS
    assert job(redis, record.id).get_status() == JobStatus.STARTED
    assert rq_queue(redis).started_job_registry.get_job_ids(cleanup=False) == [record.id]
    assert redis.ttl(Job.key_for(record.id)) == -1


def test_the_worker_is_shown_as_idle_busy_or_suspended(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    def shown() -> str:
        [seen] = BaseWorker.all(redis, serializer=JSONSerializer)
        return str(seen.get_state())

    worker.show_state(suspended=False)
    assert shown() == "idle"
    worker.show_state(suspended=True)
    assert shown() == "suspended"
    store.create(make_record())
    take(redis, store, worker)
    worker.show_state(suspended=False)
    assert shown() == "busy"


def test_a_beat_renews_the_lease_and_a_forgotten_registration(
    redis: Redis, store: VideoStore, worker: VideoWorker
) -> None:
    """Also a lease that has ended meanwhile, and that others have struck off: the job was still nobody else's."""
    record = make_record()
    store.create(record)
    claim = take(redis, store, worker)
    redis.delete(worker.key, claim.lease.execution.key)
    assert leased_jobs(redis) == set()
    worker.beat()
    assert redis.ttl(claim.lease.execution.key) == LEASE_SECONDS
    assert leased_jobs(redis) == {record.id}
    assert redis.hget(worker.key, "queues") is not None
    assert redis.ttl(worker.key) > 0
    assert release_leases(redis, "w1") == 1


def test_a_lease_ends_when_it_is_released_by_name(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    take(redis, store, worker)
    assert release_leases(redis, "somebody else") == 0
    assert leased_jobs(redis) == {record.id}
    assert release_leases(redis, "w") == 1
    assert leased_jobs(redis) == set()


def test_a_finished_job_is_in_the_finished_registry(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    claim = take(redis, store, worker)
    for _ in range(2):  # an answer that was lost
        worker.end(claim.lease, Ending.FINISHED)
    assert job(redis, record.id).get_status() == JobStatus.FINISHED
    assert rq_queue(redis).finished_job_registry.get_job_ids() == [record.id]
    assert redis.ttl(Job.key_for(record.id)) > 0
    assert leased_jobs(redis) == set()
    assert worker.executions == {}


def test_a_failed_job_is_in_the_failed_registry_and_not_tried_again(
    redis: Redis, store: VideoStore, worker: VideoWorker
) -> None:
    record = make_record()
    store.create(record)
    worker.end(take(redis, store, worker).lease, Ending.FAILED, "ffmpeg failed")
    found = job(redis, record.id)
    assert found.get_status() == JobStatus.FAILED
    assert rq_queue(redis).failed_job_registry.get_job_ids() == [record.id]
    result = found.latest_result()
    assert result is not None
    assert (result.type, result.exc_string) == (Result.Type.FAILED, "ffmpeg failed")
    assert redis.llen(f"rq:queue:{QUEUE}") == 0


def test_a_stopped_job_is_shown_as_stopped(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    worker.end(take(redis, store, worker).lease, Ending.STOPPED)
    assert job(redis, record.id).get_status() == JobStatus.STOPPED


def test_a_job_that_is_gone_leaves_nothing(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    store.create(make_record())
    worker.end(take(redis, store, worker).lease, Ending.GONE)
    assert nothing_left(redis)


def test_a_job_that_waits_anew_is_not_lost(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    claim = take(redis, store, worker)
    assert store.start(record.id, "w1") is not None
    assert store.release(record.id, "w1", used_attempt=True)
    worker.end(claim.lease, Ending.GONE)
    assert take(redis, store, worker).record.id == record.id


def test_an_execution_of_a_deleted_job_can_be_ended(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    claim = take(redis, store, worker)
    store.delete(record.id)
    redis.delete(Job.key_for(record.id))
    worker.end(claim.lease, Ending.GONE)
    assert nothing_left(redis)
    assert not redis.exists(Execution("x", record.id, redis).key)


def test_stop_and_shutdown_commands_arrive(redis: Redis, store: VideoStore, worker: VideoWorker) -> None:
    record = make_record()
    store.create(record)
    take(redis, store, worker)
    assert list(worker.jobs_to_stop()) == []
    send_stop_job_command(redis, record.id, serializer=JSONSerializer)
    send_shutdown_command(redis, "w1")
    assert wait_for(lambda: list(worker.jobs_to_stop())) == [record.id]
    assert worker.stop_signals == 1


def test_signals_are_counted(worker: VideoWorker) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        worker.request_stop(number, None)
    assert worker.stop_signals == 2


@pytest.mark.parametrize("spoil", ["deleted", "taken", "doubled", "nonsense", "pickle", "list", "other task"])
def test_entries_of_the_queue_that_are_no_waiting_job_are_dropped(
    redis: Redis, store: VideoStore, worker: VideoWorker, spoil: str
) -> None:
    record, healthy = make_record(), make_record()
    store.create(record, healthy)
    key = Job.key_for(record.id)
    data = {"nonsense": b"nonsense", "pickle": b"\x80\x04\x95", "list": json.dumps([1, 2]).encode()}
    if spoil == "deleted":
        redis.delete(key)
    elif spoil == "taken":
        redis.hset(key, "status", "started")
    elif spoil == "doubled":
        redis.rpush(f"rq:queue:{QUEUE}", record.id)
    elif spoil == "other task":
        redis.lrem(f"rq:queue:{QUEUE}", 0, record.id)
        rq_queue(redis).enqueue("os.abort", job_id=record.id, at_front=True)
    else:
        redis.hset(key, "data", data[spoil])
    claims = Claims(redis, store, ["tiny"], "w1")
    taken = [claim.record.id for claim in (claims.take() for _ in range(3)) if claim is not None]
    assert taken == ([record.id, healthy.id] if spoil == "doubled" else [healthy.id])
    assert redis.llen(f"rq:queue:{QUEUE}") == 0
