"""Models that are loaded during the steps of others: a whole worker over two models, and no room for both."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import worker.loading.model_cache
from jobs.admission.worker_load import read_loads
from jobs.model_commands import pin_model, send_command
from jobs.queue.lease import LEASE_SECONDS
from jobs.queue.rq_adapter import leased_jobs
from jobs.videos.record import VideoRecord
from models.checkpoint.load import Checkpoint
from models.transformer import Transformer
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card
from tests.worker.conftest import Bench, wait_for
from worker.dispatch import dispatcher
from worker.engine.engine import Engine, EngineSettings
from worker.loading.model_cache import ModelCache, load_models

LONG = 1000  # steps


class Gate:
    """Loading the checkpoint of a folder named `other` waits until `opened` is set. Errors come first, one a load."""

    def __init__(self, original: Callable[..., Checkpoint]) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.errors: list[Exception] = []
        self.loaded: list[weakref.ref[Transformer]] = []
        self._original = original

    def load_checkpoint(self, folder: Path, *arguments: Any, **options: Any) -> Checkpoint:
        if folder.name == "other":
            self.reached.set()
            assert self.opened.wait(60)
            if self.errors:
                raise self.errors.pop()
        checkpoint = self._original(folder, *arguments, **options)
        self.loaded.append(weakref.ref(checkpoint.transformer))
        return checkpoint


@pytest.fixture(autouse=True)
def frequent_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats are seconds apart. Their number decides here, and not their time."""
    monkeypatch.setattr(dispatcher, "BEAT_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make long jobs long on any machine."""

    def step(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        time.sleep(0.01 if engine.request_ids else 0)
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for model in ("tiny", "other"):
        make_tiny_checkpoint(tmp_path / "checkpoints" / model, tiny_card(model))
    return tmp_path / "checkpoints"


def load_with_limit(bench: Bench, root: Path, max_models: int | None = None) -> ModelCache:
    """Put a cache of both models on the bench, `tiny` in memory. The memory limit is that of `max_models` models."""
    models = load_models(root, torch.device("cpu"), torch.float32)
    if max_models is not None:
        limit = max_models * models.loaded_bytes // 2
        models = load_models(root, torch.device("cpu"), torch.float32, limit)
    models.unload("other")
    models.load("tiny")
    bench.models = models
    return models


@pytest.fixture
def gate(bench: Bench, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    load_with_limit(bench, root)
    gate = Gate(worker.loading.model_cache.load_checkpoint)
    monkeypatch.setattr(worker.loading.model_cache, "load_checkpoint", gate.load_checkpoint)
    yield gate
    gate.opened.set()


def step_of(bench: Bench, record: VideoRecord) -> int:
    return bench.context.store.get(record.id).step


def state(bench: Bench, model: str) -> str | None:
    loads = read_loads(bench.redis)
    return loads["w1"].models.get(model) if "w1" in loads else None


def test_steps_go_on_and_videos_are_completed_while_a_model_is_loaded(bench: Bench, gate: Gate) -> None:
    running = bench.queue(num_inference_steps=LONG)
    with bench.working():
        wait_for(lambda: step_of(bench, running) > 0)
        waiting = bench.queue(model="other")
        assert gate.reached.wait(60)
        before = step_of(bench, running)
        wait_for(lambda: step_of(bench, running) > before + 10)
        bench.wait_until(bench.queue(), "completed")
        assert bench.context.store.get(waiting.id).status == "in_progress"
        wait_for(lambda: state(bench, "other") == "loading")
        gate.opened.set()
        bench.wait_until(waiting, "completed")
        wait_for(lambda: state(bench, "other") == "loaded")


def test_a_video_that_is_cancelled_while_its_model_is_loaded_is_dropped(bench: Bench, gate: Gate) -> None:
    unwanted, wanted = bench.queue(model="other"), bench.queue(model="other")
    with bench.working():
        assert gate.reached.wait(60)
        wait_for(lambda: leased_jobs(bench.redis) == {unwanted.id, wanted.id})
        bench.context.store.cancel(unwanted.id)
        wait_for(lambda: leased_jobs(bench.redis) == {wanted.id})
        gate.opened.set()
        bench.wait_until(wanted, "completed")
    assert not bench.context.artifacts.exists(unwanted.id)


def test_a_burst_does_not_end_while_a_model_is_loaded(bench: Bench, gate: Gate) -> None:
    waiting = bench.queue(model="other")
    running = bench.worker(burst=True)
    thread = threading.Thread(target=running.run)
    thread.start()
    assert gate.reached.wait(60)
    bench.wait_until(bench.queue(), "completed")
    assert thread.is_alive()
    gate.opened.set()
    thread.join()
    running.sign_off()
    assert bench.context.store.get(waiting.id).status == "completed"


def test_a_second_stop_request_hands_back_what_waits_for_its_model(bench: Bench, gate: Gate) -> None:
    waiting = bench.queue(model="other")
    with bench.working(drain_seconds=3600) as running:
        assert gate.reached.wait(60)
        running.request_stop(2)
        wait_for(lambda: leased_jobs(bench.redis) == set())
        gate.opened.set()
    after = bench.context.store.get(waiting.id)
    assert (after.status, after.attempts) == ("queued", 0)


def test_a_model_that_no_longer_loads_fails_its_videos_after_all_attempts(
    bench: Bench, gate: Gate, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = [ValueError("spoiled")] * bench.settings.max_attempts
    gate.opened.set()
    broken, sound = bench.queue(model="other"), bench.queue()
    bench.run_until_empty()
    error = bench.context.store.get(broken.id).error
    assert error is not None
    assert error.code == "model_unavailable"
    assert str(root) not in error.message
    assert f"{root / 'other'} cannot be loaded" in caplog.text
    assert bench.context.store.get(sound.id).status == "completed"


def test_a_load_that_hangs_lets_the_leases_expire(bench: Bench, gate: Gate) -> None:
    hangs = threading.Event()
    skipped_seconds = 0.0
    bench.queue(model="other")
    with bench.working(on_hang=hangs.set, clock=lambda: time.monotonic() + skipped_seconds, step_timeout_seconds=300):
        assert gate.reached.wait(60)
        wait_for(lambda: state(bench, "other") == "loading")
        skipped_seconds = 305.0 + LEASE_SECONDS
        assert hangs.wait(60)
        gate.opened.set()


def test_no_memory_for_a_model_unloads_one_that_is_not_in_use(bench: Bench, gate: Gate) -> None:
    gate.errors = [torch.OutOfMemoryError("no memory")]
    gate.opened.set()
    video = bench.queue(model="other")
    with bench.working():
        bench.wait_until(video, "completed")
        wait_for(lambda: state(bench, "tiny") == "unloaded")
        assert state(bench, "other") == "loaded"
    assert bench.context.store.get(video.id).attempts == 1


def test_no_memory_for_a_model_beside_one_in_use_waits_for_it(bench: Bench, gate: Gate) -> None:
    gate.errors = [torch.OutOfMemoryError("no memory")]
    running = bench.queue(num_inference_steps=60)
    with bench.working():
        wait_for(lambda: step_of(bench, running) > 0)
        video = bench.queue(model="other")
        assert gate.reached.wait(60)
        gate.opened.set()
        bench.wait_until(video, "completed")
        assert bench.context.store.get(running.id).status == "completed"
        wait_for(lambda: state(bench, "tiny") == "unloaded")
    assert bench.context.store.get(video.id).attempts == 1


@pytest.fixture
def tiny_alone(bench: Bench, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has memory for a step of `tiny` only while `other` is not there. Both models are in memory."""
    gate.opened.set()
    tiny = bench.models["tiny"].checkpoint.transformer
    bench.models.load("other")
    gate.opened.clear()
    gate.reached.clear()
    forward = Transformer.forward

    def refusing(self: Transformer, *inputs: Any) -> torch.Tensor:
        if self is tiny and "other" in bench.models.loaded:
            torch.empty(1 << 60)
        return forward(self, *inputs)

    monkeypatch.setattr(Transformer, "forward", refusing)


@pytest.mark.usefixtures("tiny_alone")
def test_a_model_in_use_that_a_step_has_unloaded_is_loaded_during_the_steps_of_others(bench: Bench, gate: Gate) -> None:
    unloaded = bench.queue(model="other", num_inference_steps=LONG)
    with bench.working():
        wait_for(lambda: step_of(bench, unloaded) > 0)
        bench.wait_until(bench.queue(), "completed")
        assert gate.reached.wait(60)
        wait_for(lambda: state(bench, "other") == "loading")
        bench.wait_until(bench.queue(), "completed")
        before = step_of(bench, unloaded)
        gate.opened.set()
        wait_for(lambda: step_of(bench, unloaded) > before)
        assert bench.context.store.get(unloaded.id).attempts == 1


@pytest.mark.usefixtures("tiny_alone")
def test_a_video_whose_last_step_ends_after_its_model_was_unloaded_is_finished_later(
    bench: Bench, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where the device is given the next step before the last one has ended."""
    monkeypatch.setattr("worker.build.EngineSettings", partial(EngineSettings, max_in_flight_steps=2))
    both = threading.Event()

    def step_both(engine: Engine, original: Callable[[Engine], Any] = Engine.step) -> Any:
        if len(engine.request_ids) == 2:
            both.set()
        return original(engine) if both.is_set() else []

    monkeypatch.setattr(Engine, "step", step_both)
    waiting, running = bench.queue(model="other", num_inference_steps=2), bench.queue()
    with bench.working():
        bench.wait_until(running, "completed")
        assert gate.reached.wait(60)
        assert bench.context.store.get(waiting.id).status == "in_progress"
        gate.opened.set()
        after = bench.wait_until(waiting, "completed")
    assert after.attempts == 1


@pytest.mark.usefixtures("tiny_alone")
def test_a_model_in_use_that_cannot_be_loaded_again_fails_its_videos(bench: Bench, gate: Gate) -> None:
    gate.errors = [ValueError("spoiled")] * bench.settings.max_attempts
    broken = bench.queue(model="other", num_inference_steps=LONG)
    with bench.working():
        wait_for(lambda: step_of(bench, broken) > 0)
        bench.wait_until(bench.queue(), "completed")
        gate.opened.set()
        error = bench.wait_until(broken, "failed").error
    assert error is not None
    assert error.code == "model_unavailable"


def test_a_pinned_model_is_not_unloaded_for_another(bench: Bench, gate: Gate) -> None:
    gate.errors = [torch.OutOfMemoryError("no memory")] * bench.settings.max_attempts
    pin_model(bench.redis, "tiny", True)
    gate.opened.set()
    with bench.working():
        wait_for(lambda: state(bench, "tiny") == "loaded")
        video = bench.wait_until(bench.queue(model="other"), "failed")
        assert state(bench, "tiny") == "loaded"
    assert video.attempts == bench.settings.max_attempts


def test_a_command_to_unload_waits_until_the_model_is_loaded(bench: Bench, gate: Gate) -> None:
    def is_loading() -> bool:
        send_command(bench.redis, "other", "load")  # again: those from before the worker's first beat do not count
        return state(bench, "other") == "loading"

    with bench.working():
        wait_for(is_loading)
        send_command(bench.redis, "other", "unload")
        gate.opened.set()
        wait_for(lambda: state(bench, "other") == "unloaded")


def test_an_unloaded_model_leaves_memory(bench: Bench, gate: Gate) -> None:
    """No message follows that of the loader."""
    gate.opened.set()
    with bench.working(model_idle_seconds=1.0):
        bench.wait_until(bench.queue(), "completed")  # after the first beat: earlier commands do not count
        send_command(bench.redis, "other", "load")
        wait_for(lambda: gate.loaded)
        wait_for(lambda: gate.loaded[0]() is None)


def test_models_that_do_not_fit_together_take_turns(bench: Bench, root: Path) -> None:
    """Later videos of the model in memory wait behind one that needs room, which then comes next."""
    load_with_limit(bench, root, max_models=1)
    first = bench.queue(num_inference_steps=60)
    with bench.working():
        wait_for(lambda: step_of(bench, first) > 0)
        second = bench.queue(model="other")
        wait_for(lambda: second.id in leased_jobs(bench.redis))
        third = bench.queue()
        ends = [bench.wait_until(record, "completed").completed_at or 0.0 for record in (first, second, third)]
    assert ends == sorted(ends)
