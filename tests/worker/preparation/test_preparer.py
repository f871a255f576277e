"""Requests are prepared during the steps of others: a whole worker, whose reading of one seed waits for the test."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import worker.preparation.preparer
from jobs.queue.deaths import read_bystanders
from jobs.queue.lease import BEAT_SECONDS, LEASE_SECONDS
from jobs.queue.rq_adapter import leased_jobs
from jobs.videos.record import VideoRecord, VideoRequest
from models.generate import Generation
from tests.worker.conftest import Bench, wait_for
from worker.engine.engine import Engine

LONG = 1000  # steps
SLOW = 4711  # the seed


class Gate:
    """The preparation of requests with the seed `SLOW` waits until `opened` is set, and then raises `error`."""

    def __init__(self, original: Callable[..., Generation]) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self._original = original

    def to_generation(self, request: VideoRequest, *arguments: Any) -> Generation:
        if request.seed == SLOW:
            self.reached.set()
            assert self.opened.wait(60)
            if self.error is not None:
                raise self.error
        return self._original(request, *arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(worker.preparation.preparer.to_generation)
    monkeypatch.setattr(worker.preparation.preparer, "to_generation", gate.to_generation)
    yield gate
    gate.opened.set()


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make long jobs long on any machine."""

    def step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        time.sleep(0.01 if engine.request_ids else 0)
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)


def step_of(bench: Bench, record: VideoRecord) -> int:
    return bench.context.store.get(record.id).step


def test_steps_go_on_while_a_request_is_prepared(bench: Bench, gate: Gate) -> None:
    running = bench.queue(num_inference_steps=LONG)
    with bench.working():
        wait_for(lambda: step_of(bench, running) > 0)
        slow = bench.queue(seed=SLOW)
        assert gate.reached.wait(60)
        before = step_of(bench, running)
        wait_for(lambda: step_of(bench, running) > before + 10)
        assert bench.context.store.get(slow.id).status == "in_progress"
        assert leased_jobs(bench.redis) == {running.id, slow.id}
        gate.opened.set()
        bench.wait_until(slow, "completed")


def test_requests_are_admitted_in_the_order_of_their_claims(bench: Bench, gate: Gate) -> None:
    admitted: list[str] = []
    engine_admit = Engine.admit

    def admit(engine: Engine, request_id: str, *arguments: Any, **options: Any) -> None:
        admitted.append(request_id.partition("/")[0])
        engine_admit(engine, request_id, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "admit", admit)
        records = [bench.queue(seed=SLOW), bench.queue(), bench.queue()]
        with bench.working():
            wait_for(lambda: len(leased_jobs(bench.redis)) == 3)
            gate.opened.set()
            for record in records:
                bench.wait_until(record, "completed")
    assert admitted == [record.id for record in records]


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_video_that_is_no_longer_wanted_is_not_admitted(bench: Bench, gate: Gate, end: str) -> None:
    unwanted, waiting = bench.queue(seed=SLOW), bench.queue(num_inference_steps=LONG)
    with bench.working():
        assert gate.reached.wait(60)
        wait_for(lambda: waiting.id in leased_jobs(bench.redis))
        {"cancel": bench.context.store.cancel, "delete": bench.context.store.delete}[end](unwanted.id)
        wait_for(lambda: leased_jobs(bench.redis) == {waiting.id})
        gate.opened.set()
        wait_for(lambda: step_of(bench, waiting) > 0)
        bench.context.store.cancel(waiting.id)
        bench.wait_until(bench.queue(), "completed")
    assert not bench.context.artifacts.exists(unwanted.id)


def test_a_request_that_waits_behind_another_is_dropped_before_it_is_prepared(
    bench: Bench, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []

    def note(request: VideoRequest, *arguments: Any) -> Generation:
        prepared.append(request.seed)
        return gate.to_generation(request, *arguments)

    monkeypatch.setattr(worker.preparation.preparer, "to_generation", note)
    slow, unwanted = bench.queue(seed=SLOW), bench.queue(seed=1)
    with bench.working():
        assert gate.reached.wait(60)
        wait_for(lambda: unwanted.id in leased_jobs(bench.redis))
        bench.context.store.cancel(unwanted.id)
        wait_for(lambda: leased_jobs(bench.redis) == {slow.id})
        gate.opened.set()
        bench.wait_until(slow, "completed")
        bench.wait_until(bench.queue(seed=2), "completed")
    assert prepared == [SLOW, 2]


def test_a_failure_fails_its_video_alone(bench: Bench, gate: Gate) -> None:
    gate.error = ValueError("unreadable prompt")
    wrong, other = bench.queue(seed=SLOW), bench.queue()
    gate.opened.set()
    bench.run_until_empty()
    error = bench.context.store.get(wrong.id).error
    assert error is not None
    assert error.message == "unreadable prompt"
    assert bench.context.store.get(other.id).status == "completed"


def test_no_memory_for_a_moment_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = worker.preparation.preparer.to_generation
    refusals = [MemoryError()]

    def refuse_once(*arguments: Any) -> Generation:
        if refusals:
            raise refusals.pop()
        return original(*arguments)

    monkeypatch.setattr(worker.preparation.preparer, "to_generation", refuse_once)
    record = bench.queue()
    bench.run_until_empty()
    after = bench.context.store.get(record.id)
    assert (after.status, after.attempts, refusals) == ("completed", 1, [])


def test_a_burst_does_not_end_while_a_request_is_prepared(bench: Bench, gate: Gate) -> None:
    slow = bench.queue(seed=SLOW)
    running = bench.worker(burst=True)
    thread = threading.Thread(target=running.run)
    thread.start()
    assert gate.reached.wait(60)
    other = bench.queue()
    bench.wait_until(other, "in_progress")  # a whole turn of the dispatcher, with a look into the queues
    assert thread.is_alive()
    gate.opened.set()
    thread.join()
    running.sign_off()
    assert {bench.context.store.get(record.id).status for record in (slow, other)} == {"completed"}


def test_a_drain_finishes_what_is_being_prepared(bench: Bench, gate: Gate) -> None:
    slow = bench.queue(seed=SLOW)
    with bench.working(drain_seconds=3600) as running:
        assert gate.reached.wait(60)
        running.request_stop()
        gate.opened.set()
        wait_for(lambda: running.has_ended)
    assert bench.context.store.get(slow.id).status == "completed"


def test_a_second_stop_request_hands_back_what_is_being_prepared(bench: Bench, gate: Gate) -> None:
    slow, behind = bench.queue(seed=SLOW), bench.queue()
    with bench.working(drain_seconds=3600) as running:
        assert gate.reached.wait(60)
        wait_for(lambda: behind.id in leased_jobs(bench.redis))
        running.request_stop(2)
        wait_for(lambda: leased_jobs(bench.redis) == set())
        gate.opened.set()
    for record in (slow, behind):
        after = bench.context.store.get(record.id)
        assert (after.status, after.attempts) == ("queued", 0)


def test_a_video_that_is_being_prepared_is_no_bystander(bench: Bench, gate: Gate) -> None:
    slow, behind = bench.queue(seed=SLOW), bench.queue(num_inference_steps=LONG)
    with bench.working():
        assert gate.reached.wait(60)
        wait_for(lambda: read_bystanders(bench.redis, "w1").unstarted == {behind.id})
        bystanders = read_bystanders(bench.redis, "w1")
        assert bystanders.is_suspect(bench.context.store.get(slow.id))
        assert not bystanders.is_suspect(bench.context.store.get(behind.id))
        gate.opened.set()


def test_a_hanging_preparation_lets_its_leases_expire(bench: Bench, gate: Gate) -> None:
    hangs = threading.Event()
    skipped_seconds = 0.0
    bench.queue(seed=SLOW)
    with bench.working(on_hang=hangs.set, clock=lambda: time.monotonic() + skipped_seconds, step_timeout_seconds=300):
        assert gate.reached.wait(60)
        [key] = wait_for(lambda: bench.redis.keys("rq:execution:*"))
        skipped_seconds = 305.0
        time.sleep(1.0)  # a beat that had begun has ended
        bench.redis.persist(key)
        skipped_seconds += BEAT_SECONDS  # the next beat is due
        time.sleep(0.5)
        assert bench.redis.ttl(key) == -1, "renewed"
        assert not hangs.is_set()
        skipped_seconds += LEASE_SECONDS
        assert hangs.wait(60)
        gate.opened.set()
