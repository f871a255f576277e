"""When a snapshot is taken, what it holds, and which worker can resume it."""

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule
from tests.worker.conftest import Bench, make_record, wait_for
from worker.engine.engine import Engine
from worker.engine.snapshot import Snapshot
from worker.engine.snapshot_schedule import SnapshotSchedule
from worker.loading.model_cache import LoadedModel, ModelCache


@pytest.fixture
def tiny(models: ModelCache) -> LoadedModel:
    return models["tiny"]


def snapshot(step: int = 2) -> Snapshot:
    table = build_table("ddim", 4, NoiseSchedule())
    return Snapshot.of(table, step, torch.randn(1, 4, 4, 2, 8, 8), torch.zeros(5056, dtype=torch.uint8))


def stored(store: VideoStore, record: VideoRecord) -> bytes | None:
    return store.snapshot(record.id)


def test_a_taken_snapshot_can_be_opened(tiny: LoadedModel) -> None:
    taken = snapshot()
    schedule = SnapshotSchedule(1e-9, 1 << 20)
    assert schedule.take("a", tiny, lambda: taken) is None  # the first is due after a while
    content = schedule.take("a", tiny, lambda: taken)
    assert content is not None
    opened = schedule.open(content, tiny)
    assert opened is not None
    assert (opened.step, opened.steps, opened.kept) == (2, 4, taken.kept)
    assert torch.equal(opened.states, taken.states)


def test_snapshots_are_taken_at_an_interval_and_more_often_during_a_drain(tiny: LoadedModel) -> None:
    now = 1000.0
    schedule = SnapshotSchedule(60, 1 << 20, clock=lambda: now)

    def is_due(is_draining: bool = False) -> bool:
        return schedule.take("a", tiny, snapshot, is_draining) is not None

    assert not is_due()
    now += 59
    assert not is_due()
    now += 1
    assert is_due()
    assert not is_due()
    now += 1
    assert not is_due()
    assert is_due(is_draining=True)
    assert not is_due(is_draining=True)


def test_an_interval_of_0_takes_no_snapshot(tiny: LoadedModel) -> None:
    now = 1000.0
    schedule = SnapshotSchedule(0, 1 << 20, clock=lambda: now)
    for _ in range(3):
        assert schedule.take("a", tiny, snapshot, is_draining=True) is None
        now += 3600


def test_the_snapshots_of_all_requests_are_bounded(tiny: LoadedModel) -> None:
    size = len(f"framedit-snapshot-1 {tiny.fingerprint}\n") + len(snapshot().to_bytes())
    schedule = SnapshotSchedule(1e-9, 2 * size)

    def taken() -> set[str]:
        return {name for name in "abc" if schedule.take(name, tiny, snapshot)}

    assert taken() == set()
    assert taken() == {"a", "b"}
    assert taken() == {"a", "b"}
    schedule.forget("a")
    assert taken() == {"b", "c"}


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"framedit-snapshot-2" + content[19:]])
def test_an_unreadable_snapshot_is_ignored(tiny: LoadedModel, spoil: Callable[[bytes], bytes]) -> None:
    schedule = SnapshotSchedule(1e-9, 1 << 20)
    schedule.take("a", tiny, snapshot)
    content = schedule.take("a", tiny, snapshot)
    assert content is not None
    assert schedule.open(spoil(content), tiny) is None


def test_a_snapshot_of_other_weights_or_another_dtype_is_ignored(tiny: LoadedModel) -> None:
    schedule = SnapshotSchedule(1e-9, 1 << 20)
    schedule.take("a", tiny, snapshot)
    content = schedule.take("a", tiny, snapshot)
    assert content is not None
    same, other, rounded = (LoadedModel(tiny.card, copy.deepcopy(tiny.checkpoint)) for _ in range(3))
    next(other.checkpoint.transformer.parameters()).view(-1)[0] += 1e-3
    rounded.checkpoint.transformer.to(torch.bfloat16)
    assert schedule.open(content, same) is not None
    assert schedule.open(content, other) is None
    assert schedule.open(content, rounded) is None


def test_only_the_worker_that_runs_a_video_stores_a_snapshot(store: VideoStore) -> None:
    record = make_record()
    store.create(record)
    assert not store.keep_snapshot(record.id, b"too early", "w1")
    store.start(record.id, "w1")
    assert store.keep_snapshot(record.id, b"mine", "w1")
    assert not store.keep_snapshot(record.id, b"not mine", "w2")
    store.requeue(record.id, "w1")
    assert stored(store, record) == b"mine"
    assert not store.keep_snapshot(record.id, b"too late", "w1")
    store.start(record.id, "w2")
    assert stored(store, record) == b"mine"


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "delete"])
def test_the_end_of_a_video_deletes_its_snapshot(store: VideoStore, end: str) -> None:
    record = make_record()
    store.create(record)
    store.start(record.id, "w1")
    assert store.keep_snapshot(record.id, b"content", "w1")
    ends: dict[str, Callable[[], Any]] = {
        "complete": lambda: store.complete(record.id, {}, record.timings, "w1"),
        "fail": lambda: store.fail(record.id, "code", "message", "w1"),
        "cancel": lambda: store.cancel(record.id),
        "delete": lambda: store.delete(record.id),
    }
    ends[end]()
    assert stored(store, record) is None
    assert not store.keep_snapshot(record.id, b"content", "w1")


def test_a_video_that_was_handed_back_resumes_and_is_identical(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sampler that draws noise at each step."""

    def slow_step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        time.sleep(0.005)
        return original(engine)

    monkeypatch.setattr(Engine, "step", slow_step)
    caplog.set_level("INFO")
    settings = {"deterministic": True, "resume_seconds": 0.001}
    undisturbed, disturbed = (bench.queue(num_inference_steps=150, sampler="ddpm") for _ in range(2))
    with bench.working("w1", max_slots=1, **settings):
        bench.wait_until(undisturbed, "completed")
        wait_for(lambda: stored(bench.context.store, disturbed))
    assert bench.context.store.get(disturbed.id).status == "queued"
    with bench.working("w2", **settings):
        after = bench.wait_until(disturbed, "completed", "failed")
    assert after.status == "completed"
    assert f"{disturbed.id}: resumed at step" in caplog.text
    files = [bench.context.artifacts.path(record.id).read_bytes() for record in (undisturbed, disturbed)]
    assert files[0] == files[1]
    assert stored(bench.context.store, disturbed) is None


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_a_snapshot_of_another_request_is_ignored(
    bench: Bench, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes that are no snapshot, and a snapshot of a request with another number of steps."""
    caplog.set_level("INFO")
    record = bench.queue(num_inference_steps=9)
    if content is None:
        schedule, model = SnapshotSchedule(1e-9, 1 << 20), bench.models["tiny"]
        schedule.take("a", model, snapshot)
        content = schedule.take("a", model, snapshot)
        assert content is not None
    store = bench.context.store
    store.start(record.id, "w0")
    assert store.keep_snapshot(record.id, content, "w0")
    store.requeue(record.id, "w0")
    bench.run_until_empty()
    assert store.get(record.id).status == "completed"
    assert "goes on from" not in caplog.text
