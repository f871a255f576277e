import threading
import time

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs import redis_keys
from jobs.errors import InvalidRequestError, VideoNotFoundError
from jobs.queue.rq_adapter import TASK
from jobs.queue.transitions import queue_of
from jobs.videos.record import MAX_SEED, Artifact, ArtifactKind, Timings, VideoRecord, new_records
from jobs.videos.store import VideoStore
from tests.jobs.every_role import EveryRole
from tests.jobs.making import make_record, make_request

ARTIFACTS: dict[ArtifactKind, Artifact] = {"video": Artifact(num_bytes=5, sha256="0" * 64)}
TIMINGS = Timings(denoise_s=1.5, decode_s=0.25, encode_s=0.125)


def waiting(redis: Redis, record: VideoRecord) -> list[str]:
    return [raw.decode() for raw in redis.lrange(redis_keys.queue(queue_of(record)), 0, -1)]


@pytest.fixture
def record(store: VideoStore) -> VideoRecord:
    record = make_record()
    store.create(record)
    return record


@pytest.fixture
def started(store: VideoStore, record: VideoRecord) -> VideoRecord:
    started = store.start(record.id, "w1")
    assert started is not None
    return started


def test_a_record_comes_back_as_it_was_written(store: VideoStore) -> None:
    record = make_record(prompt='quotes " and 漢字\n', negative_prompt="", metadata={"k": "v"}, priority="low")
    store.create(record)
    assert store.get(record.id) == record


def test_the_job_is_json_that_carries_the_id_alone(redis: Redis, record: VideoRecord) -> None:
    job = Job.fetch(record.id, connection=redis, serializer=JSONSerializer)
    assert job.func_name == TASK
    assert job.args == [record.id]
    assert job.kwargs == {}
    assert waiting(redis, record) == [record.id]


def test_several_records_count_their_seeds_up_and_round(store: VideoStore) -> None:
    records = new_records(make_request(seed=MAX_SEED - 1), time.time(), count=3)
    store.create(*records)
    assert [store.get(record.id).request.seed for record in records] == [MAX_SEED - 1, MAX_SEED, 0]
    assert [record.id for record in store.list(order="asc").records] == [record.id for record in records]


def test_the_way_from_queued_to_completed(store: VideoStore, record: VideoRecord) -> None:
    started = store.start(record.id, "w1")
    assert started is not None
    assert (started.status, started.worker, started.attempts) == ("in_progress", "w1", 1)
    assert started.started_at is not None
    assert store.progress(record.id, 5, 20, worker="w1")
    assert store.get(record.id).progress == 25
    assert store.complete(record.id, ARTIFACTS, TIMINGS, worker="w1")
    done = store.get(record.id)
    assert (done.status, done.progress, done.artifacts, done.timings) == ("completed", 100, ARTIFACTS, TIMINGS)
    assert done.completed_at is not None
    assert done.expires_at is None
    assert store.unfinished() == []


def test_progress_stays_below_100_until_completed(store: VideoStore, started: VideoRecord) -> None:
    assert store.progress(started.id, 20, 20)
    assert store.get(started.id).progress == 99


def test_a_completed_video_expires_where_the_settings_say_so(redis: Redis, started: VideoRecord) -> None:
    store = EveryRole(redis, video_ttl_seconds=60)
    store.complete(started.id, ARTIFACTS, TIMINGS)
    done = store.get(started.id)
    assert done.completed_at is not None
    assert done.expires_at == done.completed_at + 60


def test_a_terminal_state_is_never_overwritten(store: VideoStore, started: VideoRecord) -> None:
    assert store.fail(started.id, "decoder", "no", worker="w1")
    failed = store.get(started.id)
    assert not store.complete(started.id, ARTIFACTS, TIMINGS, worker="w1")
    assert not store.progress(started.id, 9, 20, worker="w1")
    assert not store.requeue(started.id)
    assert store.start(started.id, "w2") is None
    assert store.fail(started.id, "other", "error")
    assert store.cancel(started.id) == failed
    assert store.get(started.id) == failed


def test_a_completed_video_cannot_be_cancelled(store: VideoStore, started: VideoRecord) -> None:
    store.complete(started.id, ARTIFACTS, TIMINGS)
    assert store.cancel(started.id).status == "completed"


def test_a_deleted_record_is_never_written_to_again(redis: Redis, store: VideoStore, started: VideoRecord) -> None:
    store.delete(started.id)
    assert not store.wanted(started.id, "w1")
    assert not store.progress(started.id, 3, 20, worker="w1")
    assert not store.complete(started.id, ARTIFACTS, TIMINGS, worker="w1")
    assert not store.fail(started.id, "decoder", "no")
    assert not store.requeue(started.id)
    assert store.start(started.id, "w2") is None
    assert redis.keys("framedit:video*") == []
    with pytest.raises(VideoNotFoundError):
        store.delete(started.id)
    with pytest.raises(VideoNotFoundError):
        store.cancel(started.id)


def test_deleting_a_waiting_video_takes_its_job_along(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    store.delete(record.id)
    assert waiting(redis, record) == []
    assert not Job.exists(record.id, connection=redis)


def test_cancelling_a_waiting_video_takes_its_job_along(redis: Redis, store: VideoStore, record: VideoRecord) -> None:
    cancelled = store.cancel(record.id)
    assert cancelled.status == "failed"
    assert cancelled.error is not None
    assert cancelled.error.code == "cancelled"
    assert waiting(redis, record) == []
    assert not Job.exists(record.id, connection=redis)


def test_a_job_that_a_worker_has_taken_stays_that_worker_s(
    redis: Redis, store: VideoStore, record: VideoRecord
) -> None:
    redis.lpop(redis_keys.queue(queue_of(record)))
    store.delete(record.id)
    assert Job.exists(record.id, connection=redis)
    assert store.start(record.id, "w1") is None


def test_a_running_video_that_is_cancelled_is_no_longer_wanted(store: VideoStore, started: VideoRecord) -> None:
    assert store.wanted(started.id, "w1")
    store.cancel(started.id)
    assert not store.wanted(started.id, "w1")


def test_a_video_is_started_once(store: VideoStore, started: VideoRecord) -> None:
    assert store.start(started.id, "w2") is None
    assert store.get(started.id) == started


def test_repeating_a_change_whose_answer_was_lost_is_harmless(store: VideoStore, started: VideoRecord) -> None:
    assert store.start(started.id, "w1") == started
    assert store.complete(started.id, ARTIFACTS, TIMINGS, worker="w1")
    done = store.get(started.id)
    assert store.complete(started.id, ARTIFACTS, TIMINGS, worker="w1")
    assert store.get(started.id) == done


def test_a_requeued_video_is_another_worker_s(redis: Redis, store: VideoStore, started: VideoRecord) -> None:
    other = make_record()
    store.create(other)
    redis.lrem(redis_keys.queue(queue_of(started)), 0, started.id)
    assert not store.requeue(started.id, worker="w2")
    assert store.requeue(started.id, worker="w1")
    again = store.get(started.id)
    assert (again.status, again.worker, again.started_at, again.attempts) == ("queued", None, None, 1)
    assert waiting(redis, started) == [started.id, other.id]

    assert store.start(started.id, "w2") is not None
    assert store.get(started.id).attempts == 2
    # The first worker was only slow: nothing of what it does counts any more.
    assert not store.wanted(started.id, "w1")
    assert not store.progress(started.id, 19, 20, worker="w1")
    assert not store.complete(started.id, ARTIFACTS, TIMINGS, worker="w1")
    assert not store.fail(started.id, "x", "y", worker="w1")
    assert store.complete(started.id, ARTIFACTS, TIMINGS, worker="w2")


def test_requeueing_leaves_one_job_that_can_be_run(redis: Redis, store: VideoStore, started: VideoRecord) -> None:
    redis.delete(Job.key_for(started.id))  # what RQ knew of the job may have expired
    assert store.requeue(started.id)
    job = Job.fetch(started.id, connection=redis, serializer=JSONSerializer)
    assert job.is_queued
    assert waiting(redis, started) == [started.id]


def test_of_concurrent_completions_one_wins(store: VideoStore, started: VideoRecord) -> None:
    barrier = threading.Barrier(4)
    wins: list[str] = []

    def finish(how: str) -> None:
        barrier.wait()
        if how == "complete":
            store.complete(started.id, ARTIFACTS, TIMINGS)
        else:
            store.fail(started.id, how, how)
        found = store.get(started.id)
        wins.append(found.error.code if found.error else found.status)

    threads = [threading.Thread(target=finish, args=(how,)) for how in ("complete", "a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(wins)) == 1


def test_the_list_goes_from_new_to_old_in_pages(store: VideoStore) -> None:
    records = new_records(make_request(), time.time(), count=5)
    store.create(*records)
    ids = [record.id for record in reversed(records)]
    first = store.list(limit=2)
    assert ([record.id for record in first.records], first.has_more) == (ids[:2], True)
    store.delete(ids[1])
    second = store.list(after=ids[1], limit=3)
    assert ([record.id for record in second.records], second.has_more) == (ids[2:], False)
    ascending = store.list(after=ids[4], limit=1, order="asc")
    assert ([record.id for record in ascending.records], ascending.has_more) == ([ids[3]], True)


def test_a_cursor_that_is_no_id_is_refused(store: VideoStore) -> None:
    with pytest.raises(InvalidRequestError, match="after"):
        store.list(after="video_1")
