"""Coming, going on, leaving, failing: what the engine answers; that results stay equal is test_engine_equality's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from models.transformer import Transformer
from tests.worker.engines import Everybody, RandomPolicy, alone, latents_of, make_generation, make_models, run_out
from worker.engine import Denoised, Engine, EngineSettings, Failed, Progress
from worker.errors import NotFiniteError, OutOfDeviceMemoryError
from worker.policy import Policy
from worker.snapshot import Snapshot

MODELS = make_models("hybrid")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_engine(policy: Any = None, **settings: Any) -> Engine:
    return Engine(MODELS, policy or Everybody(), EngineSettings(**settings))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each forward pass that goes through."""
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
    """Set how many rows a pass may have before memory is refused, as the CPU's allocator does it."""
    most = 1 << 30
    forward = Transformer.forward

    def refusing(self: Transformer, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(latents) > most:
            torch.empty(1 << 60)
        return forward(self, latents, *rest)

    def allow(rows: int) -> None:
        nonlocal most
        most = rows

    monkeypatch.setattr(Transformer, "forward", refusing)
    return allow


def test_progress_after_each_step_and_latents_at_the_end() -> None:
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
    assert torch.equal(denoised.latents, alone(MODELS["class"], generation))
    assert denoised.seconds > 0
    assert engine.step() == []


def test_requests_of_all_kinds_share_one_pass(passes: list[int]) -> None:
    engine = make_engine()
    wishes = {
        "a": make_generation("text", condition=0),
        "b": make_generation("text", condition=4, sampler="unipc", num_inference_steps=6, guidance_scale=7.0),
        "c": make_generation("text", condition=2, sampler="euler", guidance_scale=1.0, seed=3),
    }
    for request_id, generation in wishes.items():
        engine.admit(request_id, "text", generation)
    engine.step()
    assert passes == [5]
    latents = latents_of(run_out(engine))
    for request_id, generation in wishes.items():
        expected = alone(MODELS["text"], generation)
        assert (latents[request_id] - expected).norm() < 1e-3 * expected.norm()


def test_one_that_comes_late_goes_at_the_next_step_and_one_that_leaves_does_not(passes: list[int]) -> None:
    engine = make_engine()
    engine.admit("a", "class", make_generation())
    engine.step()
    engine.admit("b", "class", make_generation(seed=2))
    assert engine.step() == [Progress("a", 2, 4), Progress("b", 1, 4)]
    assert engine.evict("a")
    assert not engine.evict("a")
    assert engine.step() == [Progress("b", 2, 4)]
    assert passes == [2, 4, 2]


def test_other_models_and_other_shapes_go_apart(passes: list[int]) -> None:
    engine = make_engine(RandomPolicy())
    engine.admit("a", "class", make_generation())
    engine.admit("b", "class", make_generation(num_frames=2))
    engine.admit("c", "text", make_generation("text"))
    assert set(latents_of(run_out(engine))) == {"a", "b", "c"}
    assert passes == [2] * 12


def test_no_model_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short requests of one model keep coming; a long one of another has its turn by its age."""
    seconds = count()
    monkeypatch.setattr("worker.engine.monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr("worker.seat.monotonic", lambda: float(next(seconds)))
    engine = make_engine(Policy(max_rows=4), max_seats=4)
    engine.admit("long", "text", make_generation("text", num_inference_steps=20))
    numbers = count()
    done: list[str] = []
    while "long" not in done:
        while engine.free_seats():
            engine.admit(f"short {next(numbers)}", "class", make_generation(num_inference_steps=2))
        done += latents_of(engine.step())
        assert len(done) < 200


def test_the_device_being_gone_is_nobody_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(Transformer, "forward", fail)
    engine = make_engine()
    engine.admit("a", "class", make_generation())
    with pytest.raises(torch.AcceleratorError):
        engine.step()


def test_seats_are_counted() -> None:
    engine = make_engine(max_seats=2)
    engine.admit("a", "class", make_generation())
    assert engine.free_seats() == 1
    engine.admit("b", "class", make_generation())
    with pytest.raises(RuntimeError, match="all 2 seats are taken"):
        engine.admit("c", "class", make_generation())
    with pytest.raises(ValueError, match="at work already"):
        engine.admit("a", "class", make_generation())
    run_out(engine)
    assert engine.free_seats() == 2


def test_deterministic_gives_each_the_model_to_itself(passes: list[int]) -> None:
    engine = make_engine(deterministic=True)
    engine.admit("a", "class", make_generation())
    engine.admit("b", "class", make_generation(guidance_scale=1.0))
    engine.step()
    assert passes == [2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_frames": 5}, "5 frames"), ({"sampler": "heun"}, "heun"), ({"num_inference_steps": 0}, "0 inference steps")],
)
def test_what_a_checkpoint_does_not_take_is_refused(changes: dict[str, Any], message: str) -> None:
    engine = make_engine()
    with pytest.raises(ValueError, match=message):
        engine.admit("a", "class", make_generation(**changes))
    assert engine.step() == []
    assert engine.free_seats() == 16


def test_numbers_that_run_away_fail_alone() -> None:
    engine = make_engine()
    for request_id, scale in (("a", 2.0), ("b", 3e38), ("c", 2.0)):
        engine.admit(request_id, "class", make_generation(guidance_scale=scale))
    events = run_out(engine)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.request_id == "b"
    assert isinstance(failed.error, NotFiniteError)
    assert "4 steps of 'ddpm_spaced' at guidance scale 3e+38" in failed.error.message
    latents = latents_of(events)
    assert set(latents) == {"a", "c"}
    expected = alone(MODELS["class"], make_generation(guidance_scale=2.0))
    assert (latents["a"] - expected).norm() < 1e-3 * expected.norm()


def test_a_request_at_which_the_model_raises_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Transformer.forward

    def choosy(self: Transformer, latents: torch.Tensor, timesteps: torch.Tensor, condition: Any) -> torch.Tensor:
        if 2 in condition.labels:
            raise ArithmeticError("poison")
        return forward(self, latents, timesteps, condition)

    monkeypatch.setattr(Transformer, "forward", choosy)
    engine = make_engine()
    for request_id, label in (("a", 0), ("b", 2), ("c", 1)):
        engine.admit(request_id, "class", make_generation(condition=label))
    events = run_out(engine)
    assert [(event.request_id, str(event.error)) for event in events if isinstance(event, Failed)] == [("b", "poison")]
    assert set(latents_of(events)) == {"a", "c"}


def test_too_little_memory_makes_the_batch_smaller_and_loses_nobody(
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
    latents = latents_of(run_out(engine))
    for i in range(4):
        expected = alone(MODELS["class"], make_generation(seed=i))
        assert (latents[f"request {i}"] - expected).norm() < 1e-3 * expected.norm()


def test_without_memory_even_alone_a_request_waits_and_then_fails(memory_for: Callable[[int], None]) -> None:
    for patience, expected in ((60.0, []), (0.0, [Failed])):
        engine = make_engine(memory_patience_seconds=patience)
        engine.admit("a", "class", make_generation())
        memory_for(0)
        events = engine.step()
        assert [type(event) for event in events] == expected
        if events:
            assert isinstance(events[0], Failed)
            assert isinstance(events[0].error, OutOfDeviceMemoryError)
        else:
            memory_for(8)
            engine._seats["a"].waits_until = 0.0
            assert set(latents_of(run_out(engine))) == {"a"}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm_spaced", "dpmpp_2m", "unipc"])
def test_a_snapshot_is_small_and_enough(sampler: str) -> None:
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
    assert torch.equal(latents_of(run_out(second))["a"], alone(MODELS["class"], generation))


def test_a_snapshot_after_the_last_step_ends_at_once_elsewhere() -> None:
    first, second = make_engine(), make_engine()
    first._takes_more = lambda: len(first._under_way) < 2  # type: ignore[method-assign]
    generation = make_generation(num_inference_steps=2)
    first.admit("a", "class", generation)
    assert first.step() == [Progress("a", 1, 2)]
    second.admit("a", "class", generation, first.snapshot("a"))
    progress, denoised = second.step()
    assert progress == Progress("a", 2, 2)
    assert isinstance(denoised, Denoised)
    assert torch.equal(denoised.latents, alone(MODELS["class"], generation))
    assert second.free_seats() == 16


def test_noise_that_was_drawn_for_a_step_that_failed_is_drawn_again_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = make_generation(sampler="ddpm_spaced")
    first, second = make_engine(deterministic=True), make_engine(deterministic=True)
    first.admit("a", "class", generation)
    first.step()

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("worker.lineup.update", refuse)
        assert first.step() == []
    second.admit("a", "class", generation, first.snapshot("a"))
    expected = alone(MODELS["class"], generation)
    assert torch.equal(latents_of(run_out(second))["a"], expected)
    first._seats["a"].waits_until = 0.0
    assert torch.equal(latents_of(run_out(first))["a"], expected)


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


def test_what_the_device_does_in_a_second_is_measured() -> None:
    engine = make_engine(Policy())
    assert engine.cost_per_second() == {}
    engine.admit("a", "class", make_generation())
    run_out(engine)
    (cost,) = engine.cost_per_second().items()
    assert cost[0] == "class"
    assert cost[1] > 0
