"""A whole worker over a real model: many jobs at once, and every way in which a job ends early."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend
from rq.worker import BaseWorker

from jobs.admission.worker_load import read_loads
from jobs.errors import VideoNotFoundError
from jobs.queue.claimed_videos import ClaimedVideos
from jobs.queue.deaths import Bystanders, read_bystanders
from jobs.queue.lease import BEAT_SECONDS, LEASE_SECONDS
from jobs.queue.rq_adapter import leased_jobs
from jobs.redis_keys import queue_name
from jobs.videos.record import VideoRecord
from tests.mp4 import decode_mp4
from tests.worker.conftest import Bench, wait_for
from worker.engine.engine import Engine
from worker.engine.passes.batch import Batch

LONG = 1000  # steps


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make long jobs long on any machine."""

    def step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        time.sleep(0.01 if engine.request_ids else 0)
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)


def running(bench: Bench, *records: VideoRecord) -> bool:
    return all(bench.context.store.get(record.id).step > 0 for record in records)


def test_many_videos_are_made_at_once(bench: Bench) -> None:
    records = [bench.queue(num_inference_steps=4 + index % 3, guidance_scale=1 + index % 2) for index in range(6)]
    bench.run_until_empty()
    for record in records:
        after = bench.context.store.get(record.id)
        assert (after.status, after.progress, after.attempts) == ("completed", 100, 1)
        assert all(seconds is not None and seconds > 0 for _, seconds in after.timings)
        assert decode_mp4(bench.context.artifacts.path(record.id)).frames.shape == (4, 16, 16, 3)
    finished = Queue(queue_name("tiny"), connection=bench.redis).finished_job_registry
    assert set(finished.get_job_ids()) == {record.id for record in records}
    assert leased_jobs(bench.redis) == set()


def test_running_videos_are_leased_and_counted_as_load(bench: Bench) -> None:
    records = [bench.queue(num_inference_steps=LONG) for _ in range(3)]
    with bench.working():
        wait_for(lambda: running(bench, *records))
        assert leased_jobs(bench.redis) == {record.id for record in records}
        wait_for(lambda: len(read_loads(bench.redis)["w1"].remaining) == 3)
        assert read_loads(bench.redis)["w1"].free_slots == bench.settings.max_slots - 3
    assert read_loads(bench.redis) == {}


def test_the_time_that_finishing_takes_is_published(bench: Bench) -> None:
    videos = [bench.queue() for _ in range(3)]
    with bench.working():
        for video in videos:
            bench.wait_until(video, "completed")
        published = wait_for(lambda: read_loads(bench.redis)["w1"].finishing_seconds.get("tiny"))
    timings = [bench.context.store.get(video.id).timings for video in videos]
    seconds = [(times.decode_s or 0) + (times.encode_s or 0) for times in timings]
    assert min(seconds) <= published <= max(seconds)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_video_that_is_no_longer_wanted_stops_and_others_go_on(bench: Bench, end: str) -> None:
    unwanted, other = bench.queue(num_inference_steps=LONG), bench.queue(num_inference_steps=60)
    with bench.working():
        wait_for(lambda: running(bench, unwanted, other))
        {"cancel": bench.context.store.cancel, "delete": bench.context.store.delete}[end](unwanted.id)
        wait_for(lambda: leased_jobs(bench.redis) <= {other.id})
        bench.wait_until(other, "completed")
    assert not bench.context.artifacts.path(unwanted.id).parent.exists()
    if end == "delete":
        with pytest.raises(VideoNotFoundError):
            bench.context.store.get(unwanted.id)


def test_a_request_that_fails_fails_alone(bench: Bench) -> None:
    wrong, other = bench.queue(class_label=99), bench.queue()
    bench.run_until_empty()
    error = bench.context.store.get(wrong.id).error
    assert error is not None
    assert "class label 99" in error.message
    assert bench.context.store.get(other.id).status == "completed"
    assert Queue(queue_name("tiny"), connection=bench.redis).failed_job_registry.get_job_ids() == [wrong.id]


def test_a_job_of_another_worker_is_dropped_and_writes_nothing(bench: Bench) -> None:
    """As after a suspension of the process that was longer than the lease."""
    record = bench.queue(num_inference_steps=LONG)
    store = bench.context.store
    with bench.working():
        wait_for(lambda: running(bench, record))
        assert store.requeue(record.id, "w1")
        assert store.start(record.id, "w2") is not None
        wait_for(lambda: leased_jobs(bench.redis) == set())
    after = store.get(record.id)
    assert (after.status, after.worker) == ("in_progress", "w2")
    assert not bench.context.artifacts.exists(record.id)


def test_a_drain_finishes_what_it_can_and_releases_the_rest(bench: Bench) -> None:
    short, long, waiting = (bench.queue(num_inference_steps=steps) for steps in (50, LONG, LONG))
    skipped_seconds = 0.0
    with bench.working(drain_seconds=100, max_slots=2, clock=lambda: time.monotonic() + skipped_seconds) as worker:
        wait_for(lambda: running(bench, short, long))
        worker.request_stop()
        bench.wait_until(short, "completed")
        skipped_seconds = 100.0
        wait_for(lambda: worker.has_ended)
    after = bench.context.store.get(long.id)
    assert (after.status, after.attempts) == ("queued", 0)
    queued = bench.redis.lrange(f"rq:queue:{queue_name('tiny')}", 0, -1)
    assert queued == [long.id.encode(), waiting.id.encode()]


def test_a_second_stop_request_hands_back_at_once(bench: Bench) -> None:
    records = [bench.queue(num_inference_steps=LONG) for _ in range(3)]
    with bench.working(drain_seconds=3600) as worker:
        wait_for(lambda: running(bench, *records))
        worker.request_stop(2)
    assert {bench.context.store.get(record.id).status for record in records} == {"queued"}
    assert leased_jobs(bench.redis) == set()


def test_videos_in_quarantine_share_passes_with_their_group_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [None, None, "dead:0", "dead:0", "dead:1"]
    records = [bench.queue(num_inference_steps=40) for _ in groups]
    group_of = dict(zip((record.id for record in records), groups, strict=True))
    for video_id, group in group_of.items():
        if group is not None:
            assert bench.context.store.start(video_id, "dead") is not None
            changes = {"alone": True, "quarantine": group}
            assert bench.context.store.requeue(video_id, "dead", changes=changes)
    passes: set[frozenset[str]] = set()
    step = Batch.step

    def watched(batch: Batch, *args: Any) -> Any:
        passes.add(frozenset(request.request_id.partition("/")[0] for request in batch.requests))
        return step(batch, *args)

    monkeypatch.setattr(Batch, "step", watched)
    bench.run_until_empty()
    assert all(len({group_of[video_id] for video_id in members}) == 1 for members in passes)
    assert any(len(members) > 1 for members in passes)
    assert {bench.context.store.get(record.id).status for record in records} == {"completed"}


def test_the_worker_publishes_which_videos_take_part_in_no_pass(bench: Bench) -> None:
    """A pass has room for one request, and the short one is more urgent."""
    long = bench.queue(num_inference_steps=LONG)
    with bench.working(max_batch_rows=2):
        wait_for(lambda: running(bench, long))
        short = bench.queue(num_inference_steps=60)
        wait_for(lambda: read_bystanders(bench.redis, "w1").idle == {long.id})
        bench.wait_until(short, "completed")
        wait_for(lambda: read_bystanders(bench.redis, "w1") == Bystanders())


def test_a_suspended_worker_claims_nothing(bench: Bench, redis: Redis) -> None:
    def state() -> str:
        return "".join(str(worker.get_state()) for worker in BaseWorker.all(redis, serializer=JSONSerializer))

    suspend(redis)
    with bench.working():
        wait_for(lambda: state() == "suspended")
        record = bench.queue()
        time.sleep(0.5)
        assert bench.context.store.get(record.id).status == "queued"
        resume(redis)
        bench.wait_until(record, "completed")


def test_rq_s_stop_command_stops_one_job(bench: Bench, redis: Redis) -> None:
    stopped, other = bench.queue(num_inference_steps=LONG), bench.queue(num_inference_steps=60)
    with bench.working():
        wait_for(lambda: running(bench, stopped, other))
        send_stop_job_command(redis, stopped.id, serializer=JSONSerializer)
        after = bench.wait_until(stopped, "failed")
        assert after.error is not None
        assert after.error.code == "stopped"
        bench.wait_until(other, "completed")


class Outage:
    """Some methods of the store raise as without Redis, until the outage is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_over = False
        self.refused: set[str] = set()
        for name in ("start", "report", "complete", "wanted"):
            monkeypatch.setattr(ClaimedVideos, name, self.refusing(name, getattr(ClaimedVideos, name)))

    def refusing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*args: Any, **kwargs: Any) -> Any:
            if not self.is_over:
                self.refused.add(name)
                raise RedisConnectionError("away")
            return method(*args, **kwargs)

        return maybe


def test_work_goes_on_without_redis_and_is_reported_afterwards(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue(num_inference_steps=60)
    with bench.working():
        wait_for(lambda: running(bench, record))
        outage = Outage(monkeypatch)
        wait_for(lambda: bench.context.artifacts.exists(record.id, "spritesheet"))
        outage.is_over = True
        bench.wait_until(record, "completed")
    assert outage.refused >= {"report", "wanted"}
    assert bench.context.store.get(record.id).attempts == 1


def test_a_hanging_step_lets_its_leases_expire(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue(num_inference_steps=LONG)
    is_stuck, released, hangs = threading.Event(), threading.Event(), threading.Event()
    skipped_seconds = 0.0

    def step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        if skipped_seconds:
            is_stuck.set()
            assert released.wait(60)
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)
    with bench.working(on_hang=hangs.set, clock=lambda: time.monotonic() + skipped_seconds, step_timeout_seconds=300):
        wait_for(lambda: running(bench, record))
        skipped_seconds = 1.0
        assert is_stuck.wait(60)
        [key] = bench.redis.keys("rq:execution:*")
        skipped_seconds = 305.0  # the step exceeds its timeout
        time.sleep(1.0)  # a beat that had begun has ended
        bench.redis.persist(key)
        skipped_seconds += BEAT_SECONDS  # the next beat is due
        time.sleep(0.5)
        assert bench.redis.ttl(key) == -1, "renewed"
        assert not hangs.is_set()
        skipped_seconds += LEASE_SECONDS
        assert hangs.wait(60)
        released.set()
