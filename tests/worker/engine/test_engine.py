"""Admission, progress, eviction and failure. test_engine_equality.py checks that the latents stay equal."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from models.transformer import Transformer
from tests.worker.engines import (
    FullBatchScheduler,
    RandomScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_models,
    run_until_done,
)
from worker.engine.engine import Denoised, Engine, EngineSettings, Failed, Progress
from worker.engine.scheduler import Scheduler
from worker.engine.snapshot import Snapshot
from worker.errors import NotFiniteError, OutOfDeviceMemoryError

MODELS = make_models("hybrid")


def make_engine(scheduler: Any = None, clock: Callable[[], float] = time.monotonic, **settings: Any) -> Engine:
    return Engine(make_models("hybrid"), scheduler or FullBatchScheduler(), EngineSettings(**settings), clock=clock)


class ManualClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each forward pass that succeeds."""
    rows: list[int] = []
    forward = Transformer.forward

    def counting(self: Transformer, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        outputs = forward(self, latents, *rest)
        rows.append(len(latents))
        return outputs

    monkeypatch.setattr(Transformer, "forward", counting)
    return rows


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch, passes: list[int]) -> Callable[[int], None]:
    """Set the rows for which there is memory. For more rows the CPU's allocator raises its real error."""
    max_rows = 1 << 30
    forward = Transformer.forward

    def refusing(self: Transformer, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(latents) > max_rows:
            torch.empty(1 << 60)
        return forward(self, latents, *rest)

    def allow(rows: int) -> None:
        nonlocal max_rows
        max_rows = rows

    monkeypatch.setattr(Transformer, "forward", refusing)
    return allow


def test_each_step_gives_progress_and_the_last_one_latents() -> None:
    engine = make_engine()
    generation = make_generation()
    engine.admit("a", "class", generation)
    assert engine.preview("a") is None
    assert [engine.step() for _ in range(3)] == [[Progress("a", step, 4)] for step in (1, 2, 3)]
    prediction = engine.preview("a")
    assert prediction is not None
    assert prediction.shape == (1, 3, 4, 4, 4)
    progress, denoised = engine.step()
    assert progress == Progress("a", 4, 4)
    assert isinstance(denoised, Denoised)
    assert torch.equal(denoised.latents, denoise_alone(MODELS["class"], generation))
    assert denoised.seconds > 0
    assert engine.step() == []


def test_requests_with_different_settings_share_a_pass(passes: list[int]) -> None:
    engine = make_engine()
    generations = {
        "a": make_generation("text", condition=0),
        "b": make_generation("text", condition=4, sampler="unipc", num_inference_steps=6, guidance_scale=7.0),
        "c": make_generation("text", condition=2, sampler="euler", guidance_scale=1.0, seed=3),
    }
    for request_id, generation in generations.items():
        engine.admit(request_id, "text", generation)
    engine.step()
    assert passes == [5]
    latents = latents_of(run_until_done(engine))
    for request_id, generation in generations.items():
        expected = denoise_alone(MODELS["text"], generation)
        assert (latents[request_id] - expected).norm() < 1e-3 * expected.norm()


def test_admission_and_eviction_take_effect_at_the_next_step(passes: list[int]) -> None:
    engine = make_engine()
    engine.admit("a", "class", make_generation())
    engine.step()
    engine.admit("b", "class", make_generation(seed=2))
    assert engine.step() == [Progress("a", 2, 4), Progress("b", 1, 4)]
    assert engine.evict("a")
    assert not engine.evict("a")
    assert engine.step() == [Progress("b", 2, 4)]
    assert passes == [2, 4, 2]


def test_other_models_and_other_shapes_do_not_share_a_pass(passes: list[int]) -> None:
    engine = make_engine(RandomScheduler())
    engine.admit("a", "class", make_generation())
    engine.admit("b", "class", make_generation(num_frames=2))
    engine.admit("c", "text", make_generation("text"))
    assert set(latents_of(run_until_done(engine))) == {"a", "b", "c"}
    assert passes == [2] * 12


def test_no_model_starves() -> None:
    """Short requests of one model keep coming; a long request of another model runs once it is old enough."""
    seconds = count()
    engine = make_engine(Scheduler(max_rows=4), clock=lambda: float(next(seconds)), max_slots=4)
    engine.admit("long", "text", make_generation("text", num_inference_steps=20))
    numbers = count()
    done: list[str] = []
    while "long" not in done:
        while engine.free_slots():
            engine.admit(f"short {next(numbers)}", "class", make_generation(num_inference_steps=2))
        done += latents_of(engine.step())
        assert len(done) < 200


def test_a_lost_device_raises_and_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(Transformer, "forward", fail)
    engine = make_engine()
    engine.admit("a", "class", make_generation())
    with pytest.raises(torch.AcceleratorError):
        engine.step()


def test_slots_are_counted() -> None:
    engine = make_engine(max_slots=2)
    engine.admit("a", "class", make_generation())
    assert engine.free_slots() == 1
    engine.admit("b", "class", make_generation())
    with pytest.raises(RuntimeError, match="all 2 slots are taken"):
        engine.admit("c", "class", make_generation())
    with pytest.raises(ValueError, match="is active already"):
        engine.admit("a", "class", make_generation())
    run_until_done(engine)
    assert engine.free_slots() == 2


def test_deterministic_mode_gives_each_request_its_own_pass(passes: list[int]) -> None:
    engine = make_engine(deterministic=True)
    engine.admit("a", "class", make_generation())
    engine.admit("b", "class", make_generation(guidance_scale=1.0))
    engine.step()
    assert passes == [2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_frames": 0}, "0 frames"), ({"sampler": "heun"}, "heun"), ({"num_inference_steps": 0}, "0 inference steps")],
)
def test_a_generation_that_the_checkpoint_does_not_support_is_refused(changes: dict[str, Any], message: str) -> None:
    engine = make_engine()
    with pytest.raises(ValueError, match=message):
        engine.admit("a", "class", make_generation(**changes))
    assert engine.step() == []
    assert engine.free_slots() == 16


def test_a_request_that_diverges_fails_alone() -> None:
    engine = make_engine()
    for request_id, scale in (("a", 2.0), ("b", 3e38), ("c", 2.0)):
        engine.admit(request_id, "class", make_generation(guidance_scale=scale))
    events = run_until_done(engine)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.request_id == "b"
    assert isinstance(failed.error, NotFiniteError)
    assert "4 steps of 'ddpm_spaced' at guidance scale 3e+38" in failed.error.message
    latents = latents_of(events)
    assert set(latents) == {"a", "c"}
    expected = denoise_alone(MODELS["class"], make_generation(guidance_scale=2.0))
    assert (latents["a"] - expected).norm() < 1e-3 * expected.norm()


def test_a_request_for_which_the_model_raises_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Transformer.forward

    def poisoned(
        self: Transformer, latents: torch.Tensor, timesteps: torch.Tensor, condition: Any, *rest: Any
    ) -> torch.Tensor:
        if 2 in condition.labels:
            raise ArithmeticError("poison")
        return forward(self, latents, timesteps, condition, *rest)

    monkeypatch.setattr(Transformer, "forward", poisoned)
    engine = make_engine()
    for request_id, label in (("a", 0), ("b", 2), ("c", 1)):
        engine.admit(request_id, "class", make_generation(condition=label))
    events = run_until_done(engine)
    assert [(event.request_id, str(event.error)) for event in events if isinstance(event, Failed)] == [("b", "poison")]
    assert set(latents_of(events)) == {"a", "c"}


def test_short_memory_makes_the_batch_smaller_and_loses_no_request(
    passes: list[int], memory_for: Callable[[int], None]
) -> None:
    engine = make_engine(max_batch_rows=8)
    for i in range(4):
        engine.admit(f"request {i}", "class", make_generation(seed=i))
    memory_for(5)
    assert engine.step() == [Progress("request 0", 1, 4), Progress("request 1", 1, 4)]
    memory_for(1)
    assert engine.step() == [Progress("request 0", 2, 4)]
    assert passes == [4, 1, 1]
    memory_for(8)
    latents = latents_of(run_until_done(engine))
    for i in range(4):
        expected = denoise_alone(MODELS["class"], make_generation(seed=i))
        assert (latents[f"request {i}"] - expected).norm() < 1e-3 * expected.norm()


def test_a_request_without_memory_waits_until_there_is_some(memory_for: Callable[[int], None]) -> None:
    clock = ManualClock()
    engine = make_engine(clock=clock)
    engine.admit("a", "class", make_generation())
    memory_for(0)
    assert engine.step() == []
    memory_for(8)
    assert engine.step() == []
    clock.now += 1
    assert set(latents_of(run_until_done(engine))) == {"a"}


def test_a_request_without_memory_fails_after_a_while(memory_for: Callable[[int], None]) -> None:
    clock = ManualClock()
    engine = make_engine(clock=clock, memory_patience_seconds=60.0)
    engine.admit("a", "class", make_generation())
    memory_for(0)
    assert engine.step() == []
    clock.now += 59
    assert engine.step() == []
    clock.now += 1
    (failed,) = engine.step()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, OutOfDeviceMemoryError)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm_spaced", "dpmpp_2m", "unipc"])
def test_a_snapshot_is_small_and_resumes_bit_for_bit(sampler: str) -> None:
    generation = make_generation(sampler=sampler, num_inference_steps=6)
    first, second = make_engine(), make_engine()
    first.admit("a", "class", generation)
    first.step()
    first.step()
    content = first.snapshot("a").to_bytes()
    kept = {"ddim": 1, "ddpm_spaced": 1, "dpmpp_2m": 2, "unipc": 4}[sampler]
    assert len(content) < kept * 3 * 4 * 4 * 4 * 4 + 6000
    second.admit("a", "class", generation, Snapshot.from_bytes(content))
    assert second.preview("a") is None
    assert second.step() == [Progress("a", 3, 6)]
    assert torch.equal(latents_of(run_until_done(second))["a"], denoise_alone(MODELS["class"], generation))


def test_a_snapshot_after_the_last_step_is_complete_at_once() -> None:
    first, second = make_engine(max_in_flight_steps=2), make_engine()
    generation = make_generation(num_inference_steps=2)
    first.admit("a", "class", generation)
    assert first.step() == [Progress("a", 1, 2)]
    second.admit("a", "class", generation, first.snapshot("a"))
    progress, denoised = second.step()
    assert progress == Progress("a", 2, 2)
    assert isinstance(denoised, Denoised)
    assert torch.equal(denoised.latents, denoise_alone(MODELS["class"], generation))
    assert second.free_slots() == 16


def test_a_snapshot_after_a_failed_step_draws_the_same_noise_again(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = make_generation(sampler="ddpm_spaced")
    clock = ManualClock()
    first, second = make_engine(deterministic=True, clock=clock), make_engine(deterministic=True)
    first.admit("a", "class", generation)
    first.step()

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("worker.engine.passes.step.update", refuse)
        assert first.step() == []
    second.admit("a", "class", generation, first.snapshot("a"))
    expected = denoise_alone(MODELS["class"], generation)
    assert torch.equal(latents_of(run_until_done(second))["a"], expected)
    clock.now += 1
    assert torch.equal(latents_of(run_until_done(first))["a"], expected)


def test_a_snapshot_of_another_request_is_refused() -> None:
    engine = make_engine()
    engine.admit("a", "class", make_generation())
    engine.step()
    snapshot = engine.snapshot("a")
    others = [make_generation(num_frames=2), make_generation(num_inference_steps=5), make_generation(sampler="unipc")]
    for other in others:
        with pytest.raises(ValueError, match="got a snapshot at step 1 of 4"):
            engine.admit("b", "class", other, snapshot)
    with pytest.raises(ValueError, match="generator state"):
        engine.admit("b", "class", make_generation(), replace(snapshot, noise_state=torch.zeros(3)))
    with pytest.raises(ValueError, match="5 bytes that are not a snapshot"):
        Snapshot.from_bytes(b"bytes")


def test_the_cost_per_second_is_measured() -> None:
    engine = make_engine(Scheduler())
    assert engine.cost_per_second() == {}
    engine.admit("a", "class", make_generation())
    run_until_done(engine)
    (cost,) = engine.cost_per_second().items()
    assert cost[0] == "class"
    assert cost[1] > 0


def test_the_windows_of_a_long_video_share_passes_with_other_requests() -> None:
    rows: list[int] = []
    models = make_models("local")
    engine = Engine(
        models,
        FullBatchScheduler(),
        EngineSettings(max_batch_rows=16),
        on_pass=lambda _model, n, _seconds: rows.append(n),
    )
    long = make_generation(num_frames=7)  # 4 frames are trained: windows at 0, 2 and 3
    short = make_generation(num_frames=4, guidance_scale=1.0, known=[0], seed=2)
    engine.admit("long", "class", long)
    engine.admit("short", "class", short)
    latents = latents_of(run_until_done(engine))
    assert set(rows) == {3 * 2 + 1}
    for name, generation in (("long", long), ("short", short)):
        expected = denoise_alone(models["class"], generation)
        assert latents[name].shape == expected.shape
        assert (latents[name] - expected).norm() < 1e-4 * expected.norm()


def test_the_turns_of_a_long_video_share_passes_with_other_requests() -> None:
    rows: list[int] = []
    models = make_models("hybrid")
    engine = Engine(models, FullBatchScheduler(), EngineSettings(), on_pass=lambda _model, n, _seconds: rows.append(n))
    requests = {
        "long": make_generation(num_frames=7),  # 4 frames are trained: turns from 0, 2 and 3
        "planned": make_generation(num_frames=9, sampler="ddim", num_inference_steps=6, plan="221202", seed=3),
        "known": make_generation(num_frames=6, known=[0, 5], seed=4),
        "edit": make_generation(num_frames=6, strength=0.6, seed=5),
        "short": make_generation(num_frames=4, guidance_scale=1.0, known=[0], seed=2),
    }
    for name, generation in requests.items():
        engine.admit(name, "class", generation)
    events = run_until_done(engine)
    assert rows[0] == 4 * 2 + 1
    assert max(rows) == rows[0]
    assert [event.step for event in events if isinstance(event, Progress) and event.request_id == "long"] == [
        step // 3 for step in range(1, 3 * 4 + 1)
    ]
    for name, latents in latents_of(events).items():
        expected = denoise_alone(models["class"], requests.pop(name))
        assert latents.shape == expected.shape
        assert (latents - expected).norm() < 1e-4 * expected.norm()
    assert not requests


@pytest.mark.parametrize("sampler", ["ddpm_spaced", "dpmpp_2m"])
def test_a_long_video_resumes_bit_for_bit_from_a_snapshot_of_any_turn(sampler: str) -> None:
    models, generation = make_models("hybrid"), make_generation(num_frames=9, sampler=sampler)
    moves, num_frames = 0, []
    engine = Engine(models, FullBatchScheduler(), EngineSettings())
    engine.admit("a", "class", generation)
    while not (done := latents_of(engine.step())):
        content = engine.snapshot("a").to_bytes()
        prediction = engine.preview("a")
        assert prediction is not None
        num_frames.append(prediction.shape[1])
        engine = Engine(models, FullBatchScheduler(), EngineSettings())
        engine.admit("a", "class", generation, Snapshot.from_bytes(content))
        moves += 1
    assert moves == 4 * 4 - 1  # 4 steps in turns from 0, 2, 4 and 5
    assert num_frames == [4] * 4 + [6] * 4 + [8] * 4 + [9] * 3
    assert torch.equal(done["a"], denoise_alone(models["class"], generation))


def test_a_snapshot_without_turns_has_the_bytes_of_before() -> None:
    """Workers of an earlier version resume it."""
    engine = Engine(make_models("hybrid"), FullBatchScheduler(), EngineSettings())
    engine.admit("a", "class", make_generation(num_frames=4))
    engine.step()
    content = engine.snapshot("a").to_bytes()
    assert b"turn" not in content
    assert b"made" not in content


def test_a_snapshot_of_other_turns_is_refused() -> None:
    engine = Engine(make_models("hybrid"), FullBatchScheduler(), EngineSettings())
    engine.admit("a", "class", make_generation(num_frames=9))
    for _ in range(5):
        engine.step()
    snapshot = engine.snapshot("a")
    assert snapshot.turn == 1
    with pytest.raises(ValueError, match="got a snapshot of turn 1: this request has 1 of other frames"):
        engine.admit("b", "class", make_generation(num_frames=4), snapshot)
    for spoiled in (replace(snapshot, made=None), replace(snapshot, turn=2), replace(snapshot, turn=9)):
        with pytest.raises(ValueError, match="got a snapshot of turn"):
            engine.admit("b", "class", make_generation(num_frames=9), spoiled)
