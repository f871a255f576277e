"""What is kept of a video, and who can go on from it."""

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.records import VideoRecord
from jobs.store import VideoStore
from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule
from tests.worker.conftest import Bench, make_record, wait_for
from worker.engine import Engine
from worker.resident import ResidentModel, ResidentModels
from worker.resuming import Resuming
from worker.snapshot import Snapshot


@pytest.fixture
def tiny(models: ResidentModels) -> ResidentModel:
    return models["tiny"]


def snapshot(step: int = 2) -> Snapshot:
    table = build_table("ddim", 4, NoiseSchedule())
    return Snapshot.of(table, step, torch.randn(1, 4, 4, 2, 8, 8), torch.zeros(5056, dtype=torch.uint8))


def kept(store: VideoStore, record: VideoRecord) -> bytes | None:
    return store.snapshot(record.id)


def test_what_was_taken_can_be_opened(tiny: ResidentModel) -> None:
    taken = snapshot()
    resuming = Resuming(1e-9, 1 << 20)
    assert resuming.take("a", tiny, lambda: taken) is None  # the first is due after a while
    content = resuming.take("a", tiny, lambda: taken)
    assert content is not None
    opened = resuming.open(content, tiny)
    assert opened is not None
    assert (opened.step, opened.steps, opened.kept) == (2, 4, taken.kept)
    assert torch.equal(opened.states, taken.states)


def test_nothing_is_taken_before_it_is_due_and_sooner_in_haste(tiny: ResidentModel) -> None:
    def unwanted() -> Snapshot:
        raise AssertionError("nothing is due")

    for seconds in (0, 3600):
        for _ in range(3):
            assert Resuming(seconds, 1 << 20).take("a", tiny, unwanted) is None
    resuming = Resuming(3600, 1 << 20)
    assert resuming.take("a", tiny, unwanted) is None
    assert wait_for(lambda: resuming.take("a", tiny, snapshot, is_hasty=True))
    assert resuming.take("a", tiny, unwanted, is_hasty=True) is None


def test_all_together_are_bounded(tiny: ResidentModel) -> None:
    size = len(f"framedit-snapshot-1 {tiny.fingerprint}\n") + len(snapshot().to_bytes())
    resuming = Resuming(1e-9, 2 * size)

    def taken() -> set[str]:
        return {name for name in "abc" if resuming.take(name, tiny, snapshot)}

    assert taken() == set()
    assert taken() == {"a", "b"}
    assert taken() == {"a", "b"}
    resuming.forget("a")
    assert taken() == {"b", "c"}


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"framedit-snapshot-2" + content[19:]])
def test_what_is_of_no_use_is_nothing(tiny: ResidentModel, spoil: Callable[[bytes], bytes]) -> None:
    resuming = Resuming(1e-9, 1 << 20)
    resuming.take("a", tiny, snapshot)
    content = resuming.take("a", tiny, snapshot)
    assert content is not None
    assert resuming.open(spoil(content), tiny) is None


def test_other_weights_and_dtypes_are_other_models(tiny: ResidentModel) -> None:
    resuming = Resuming(1e-9, 1 << 20)
    resuming.take("a", tiny, snapshot)
    content = resuming.take("a", tiny, snapshot)
    assert content is not None
    same, other, rounded = (ResidentModel(tiny.card, copy.deepcopy(tiny.checkpoint)) for _ in range(3))
    next(other.checkpoint.transformer.parameters()).view(-1)[0] += 1e-3
    rounded.checkpoint.transformer.to(torch.bfloat16)
    assert resuming.open(content, same) is not None
    assert resuming.open(content, other) is None
    assert resuming.open(content, rounded) is None


def test_only_the_worker_that_has_a_video_keeps_something_of_it(store: VideoStore) -> None:
    record = make_record()
    store.create(record)
    assert not store.keep_snapshot(record.id, b"too early", "w1")
    store.start(record.id, "w1")
    assert store.keep_snapshot(record.id, b"mine", "w1")
    assert not store.keep_snapshot(record.id, b"not mine", "w2")
    store.requeue(record.id, "w1")
    assert kept(store, record) == b"mine"
    assert not store.keep_snapshot(record.id, b"too late", "w1")
    store.start(record.id, "w2")
    assert kept(store, record) == b"mine"


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "delete"])
def test_nothing_is_kept_of_what_has_ended(store: VideoStore, end: str) -> None:
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
    assert kept(store, record) is None
    assert not store.keep_snapshot(record.id, b"content", "w1")


def test_a_video_that_was_handed_back_goes_on_and_is_the_same(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With noise drawn at each step."""

    def slow_step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        time.sleep(0.005)
        return original(engine)

    monkeypatch.setattr(Engine, "step", slow_step)
    caplog.set_level("INFO")
    settings = {"deterministic": True, "resume_seconds": 0.001}
    undisturbed, disturbed = (bench.queue(num_inference_steps=150, sampler="ddpm") for _ in range(2))
    with bench.working("w1", max_seats=1, **settings):
        bench.wait_until(undisturbed, "completed")
        wait_for(lambda: kept(bench.place.store, disturbed))
    assert bench.place.store.get(disturbed.id).status == "queued"
    with bench.working("w2", **settings):
        after = bench.wait_until(disturbed, "completed", "failed")
    assert after.status == "completed"
    assert f"{disturbed.id}: goes on from step" in caplog.text
    files = [bench.place.artifacts.path(record.id).read_bytes() for record in (undisturbed, disturbed)]
    assert files[0] == files[1]
    assert kept(bench.place.store, disturbed) is None


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_what_does_not_fit_is_ignored(bench: Bench, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    """What is no snapshot, and one of a request with another number of steps."""
    caplog.set_level("INFO")
    record = bench.queue(num_inference_steps=9)
    if content is None:
        resuming, model = Resuming(1e-9, 1 << 20), bench.models["tiny"]
        resuming.take("a", model, snapshot)
        content = resuming.take("a", model, snapshot)
        assert content is not None
    store = bench.place.store
    store.start(record.id, "w0")
    assert store.keep_snapshot(record.id, content, "w0")
    store.requeue(record.id, "w0")
    bench.work()
    assert store.get(record.id).status == "completed"
    assert "goes on from" not in caplog.text
