"""A worker as a whole, over a real model: many jobs at once, and all the ways in which one ends early."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from jobs.errors import VideoNotFoundError
from jobs.loads import read_loads
from jobs.queue import open_queue, queue_name
from jobs.records import VideoRecord
from jobs.store import VideoStore
from tests.mp4 import decode_mp4
from tests.worker.conftest import Bench, wait_for
from worker.desk import Held
from worker.engine import Engine
from worker.leases import leased_jobs
from worker.loop import Loop

LONG = 1000  # steps


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is long is long on any machine."""

    def step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        time.sleep(0.01 if engine._seats else 0)
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)


def running(bench: Bench, *records: VideoRecord) -> bool:
    return all(bench.place.store.get(record.id).step > 0 for record in records)


def test_many_videos_are_made_at_once(bench: Bench) -> None:
    records = [bench.queue(num_inference_steps=4 + index % 3, guidance_scale=1 + index % 2) for index in range(6)]
    bench.work()
    for record in records:
        after = bench.place.store.get(record.id)
        assert (after.status, after.progress, after.attempts) == ("completed", 100, 1)
        assert all(seconds is not None and seconds > 0 for _, seconds in after.timings)
        assert decode_mp4(bench.place.artifacts.path(record.id)).frames.shape == (4, 16, 16, 3)
    finished = open_queue(bench.redis, queue_name("tiny")).finished_job_registry
    assert set(finished.get_job_ids()) == {record.id for record in records}
    assert leased_jobs(bench.redis) == set()


def test_while_they_are_made_all_are_leased_and_told_of(bench: Bench) -> None:
    records = [bench.queue(num_inference_steps=LONG) for _ in range(3)]
    with bench.working():
        wait_for(lambda: running(bench, *records))
        assert leased_jobs(bench.redis) == {record.id for record in records}
        wait_for(lambda: len(read_loads(bench.redis)["w1"].remaining) == 3)
        assert read_loads(bench.redis)["w1"].free_seats == bench.settings.max_seats - 3
    assert read_loads(bench.redis) == {}


def test_how_long_finishing_takes_is_learnt_and_told(bench: Bench) -> None:
    videos = [bench.queue() for _ in range(3)]
    with bench.working():
        for video in videos:
            bench.wait_until(video, "completed")
        told = wait_for(lambda: read_loads(bench.redis)["w1"].finishing_seconds.get("tiny"))
    timings = [bench.place.store.get(video.id).timings for video in videos]
    seconds = [(times.decode_s or 0) + (times.encode_s or 0) for times in timings]
    assert min(seconds) <= told <= max(seconds)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_what_is_no_longer_wanted_stops_and_the_others_go_on(bench: Bench, end: str) -> None:
    unwanted, other = bench.queue(num_inference_steps=LONG), bench.queue(num_inference_steps=300)
    with bench.working():
        wait_for(lambda: running(bench, unwanted, other))
        {"cancel": bench.place.store.cancel, "delete": bench.place.store.delete}[end](unwanted.id)
        wait_for(lambda: leased_jobs(bench.redis) <= {other.id})
        bench.wait_until(other, "completed")
    assert not bench.place.artifacts.path(unwanted.id).parent.exists()
    if end == "delete":
        with pytest.raises(VideoNotFoundError):
            bench.place.store.get(unwanted.id)


def test_a_request_that_fails_fails_alone(bench: Bench) -> None:
    wrong, other = bench.queue(class_label=99), bench.queue()
    bench.work()
    error = bench.place.store.get(wrong.id).error
    assert error is not None
    assert "class label 99" in error.message
    assert bench.place.store.get(other.id).status == "completed"
    assert open_queue(bench.redis, queue_name("tiny")).failed_job_registry.get_job_ids() == [wrong.id]


def test_a_job_of_another_worker_is_let_go_and_nothing_is_written(bench: Bench) -> None:
    """As after a stop of the process that was longer than the lease."""
    record = bench.queue(num_inference_steps=LONG)
    store = bench.place.store
    with bench.working():
        wait_for(lambda: running(bench, record))
        assert store.requeue(record.id, "w1")
        assert store.start(record.id, "w2") is not None
        wait_for(lambda: leased_jobs(bench.redis) == set())
    after = store.get(record.id)
    assert (after.status, after.worker) == ("in_progress", "w2")
    assert not bench.place.artifacts.exists(record.id)


def test_asked_to_stop_it_finishes_what_it_can_and_hands_back_the_rest(bench: Bench) -> None:
    short, long, waiting = (bench.queue(num_inference_steps=steps) for steps in (50, LONG, LONG))
    with bench.working(drain_seconds=2, max_seats=2) as loop:
        wait_for(lambda: running(bench, short, long))
        loop.desk.worker.stop_signals = 1
        wait_for(loop.desk.over.is_set)
    after = bench.place.store.get(long.id)
    assert (after.status, after.attempts) == ("queued", 0)
    assert bench.place.store.get(short.id).status == "completed"
    queued = bench.redis.lrange(f"rq:queue:{queue_name('tiny')}", 0, -1)
    assert queued == [long.id.encode(), waiting.id.encode()]


def test_asked_twice_it_hands_back_at_once(bench: Bench) -> None:
    records = [bench.queue(num_inference_steps=LONG) for _ in range(3)]
    with bench.working(drain_seconds=3600) as loop:
        wait_for(lambda: running(bench, *records))
        loop.desk.worker.stop_signals = 2
    assert {bench.place.store.get(record.id).status for record in records} == {"queued"}
    assert leased_jobs(bench.redis) == set()


def test_a_suspect_is_made_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    suspect, others = bench.queue(), [bench.queue() for _ in range(3)]
    assert bench.place.store.start(suspect.id, "dead") is not None
    assert bench.place.store.requeue(suspect.id, "dead", alone=True)
    companies: list[int] = []
    step = Engine.step

    def watched(engine: Engine) -> Any:
        companies.append(len(engine._seats) if any(suspect.id in request for request in engine._seats) else 0)
        return step(engine)

    monkeypatch.setattr(Engine, "step", watched)
    bench.work()
    assert set(companies) == {0, 1}
    assert {bench.place.store.get(record.id).status for record in [suspect, *others]} == {"completed"}


def test_suspended_it_takes_nothing_until_it_is_resumed(bench: Bench, redis: Redis) -> None:
    suspend(redis)
    with bench.working() as loop:
        wait_for(lambda: loop.desk.worker.get_state() == "suspended")
        record = bench.queue()
        wait_for(lambda: loop.desk._due.poll)
        assert bench.place.store.get(record.id).status == "queued"
        resume(redis)
        bench.wait_until(record, "completed")


def test_rq_s_stop_command_stops_one_job(bench: Bench, redis: Redis) -> None:
    stopped, other = bench.queue(num_inference_steps=LONG), bench.queue(num_inference_steps=300)
    with bench.working():
        wait_for(lambda: running(bench, stopped, other))
        send_stop_job_command(redis, stopped.id, serializer=JSONSerializer)
        after = bench.wait_until(stopped, "failed")
        assert after.error is not None
        assert after.error.code == "stopped"
        bench.wait_until(other, "completed")


class Outage:
    """Redis does not answer some methods of the store, until it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_over = False
        self.refused: set[str] = set()
        for name in ("start", "report", "complete", "wanted"):
            monkeypatch.setattr(VideoStore, name, self.refusing(name, getattr(VideoStore, name)))

    def refusing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*args: Any, **kwargs: Any) -> Any:
            if not self.is_over:
                self.refused.add(name)
                raise RedisConnectionError("away")
            return method(*args, **kwargs)

        return maybe


def test_with_redis_away_the_work_goes_on_and_is_delivered_after(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue(num_inference_steps=200)
    made: list[Held] = []
    hear = Loop._collect

    def watched(loop: Loop) -> None:
        hear(loop)
        made.extend(held for held in loop.desk._held.values() if held.is_denoised)

    monkeypatch.setattr(Loop, "_collect", watched)
    with bench.working():
        wait_for(lambda: running(bench, record))
        outage = Outage(monkeypatch)
        wait_for(lambda: made)
        wait_for(lambda: bench.place.artifacts.exists(record.id, "spritesheet"))
        outage.is_over = True
        bench.wait_until(record, "completed")
    assert outage.refused >= {"report"}
    assert bench.place.store.get(record.id).attempts == 1


def test_a_hanging_step_keeps_no_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue(num_inference_steps=LONG)
    hangs: list[float] = []
    hung = False

    def step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        if hung:
            wait_for(lambda: not hung)
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)
    with bench.working(step_timeout_seconds=0.2) as loop:
        loop.desk.on_hang = lambda: hangs.append(1)
        wait_for(lambda: running(bench, record))
        hung = True
        wait_for(lambda: loop.desk._is_hanging())
        [key] = bench.redis.keys("rq:execution:*")
        bench.redis.persist(key)
        loop.desk._due.beat = 0.0
        wait_for(lambda: loop.desk._due.poll > loop.desk.alive_at + 1)
        assert bench.redis.ttl(key) == -1, "renewed"
        hung = False
