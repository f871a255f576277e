"""What only a CUDA device does: the next step given ahead, memory measured and refused, decoding in its own stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import worker.finishing
from models.generate import Generation
from models.registry import published_model
from tests.worker.conftest import results_of
from tests.worker.engines import (
    Everybody,
    RandomPolicy,
    alone,
    latents_of,
    make_generation,
    make_model,
    make_models,
    run_out,
)
from worker.engine import Engine, EngineSettings, Progress
from worker.finishing import Finished, Finisher
from worker.resident import ResidentModel, ResidentModels
from worker.snapshot import Snapshot

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

FRAMES = 16
MIB = 1 << 20


@pytest.fixture(scope="module")
def large() -> ResidentModels:
    """A model of which a row takes some 100 MiB."""
    config = published_model("Latte-S/2", num_frames=FRAMES, image_size=256, num_classes=7).config
    model = make_model(replace(config, depth=2), "cuda")
    return ResidentModels({"large": model.card}, {"large": model}.__getitem__)


def make_large(seed: int) -> Generation:
    return make_generation(
        seed=seed, num_inference_steps=3, guidance_scale=1.0, num_frames=FRAMES, condition=seed, sampler="ddim"
    )


@contextmanager
def memory_left(num_bytes: int) -> Iterator[None]:
    torch.cuda.empty_cache()
    ballast = torch.empty(torch.cuda.mem_get_info()[0] - num_bytes, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del ballast
        torch.cuda.empty_cache()


def test_the_device_has_a_step_while_the_one_before_is_looked_at() -> None:
    engine = Engine(make_models("hybrid", "cuda"), Everybody(), EngineSettings())
    engine.admit("a", "class", make_generation(num_inference_steps=4))
    engine.admit("b", "class", make_generation(num_inference_steps=4, seed=2))
    assert engine.step() == [Progress("a", 1, 4), Progress("b", 1, 4)]
    assert len(engine._under_way) == 1
    assert engine.evict("b")
    assert engine.step() == [Progress("a", 2, 4)]
    assert list(latents_of(run_out(engine))) == ["a"]


def test_too_little_memory_makes_the_batch_smaller_and_loses_nobody(large: ResidentModels) -> None:
    rows: list[int] = []
    engine = Engine(large, Everybody(), EngineSettings(), on_pass=lambda _, count, __: rows.append(count))
    wishes = {str(seed): make_large(seed) for seed in range(8)}
    expected = {name: alone(large["large"], wish) for name, wish in wishes.items()}
    for name, wish in wishes.items():
        engine.admit(name, "large", wish)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    engine.step()
    with memory_left((torch.cuda.max_memory_allocated() - before) // 2):
        latents = latents_of(run_out(engine))
    assert rows[0] == 8
    assert max(rows[2:]) < 8  # one was under way when it got short
    assert sum(rows) == 8 * 3
    for name, result in latents.items():
        assert (result - expected[name]).norm() < 1e-3 * expected[name].norm()
    assert set(latents) == set(wishes)


def test_warm_up_finds_out_how_many_rows_there_is_memory_for(
    large: ResidentModels, caplog: pytest.LogCaptureFixture
) -> None:
    with memory_left(2048 * MIB):
        engine = Engine(large, Everybody(), EngineSettings(max_batch_rows=64, max_seats=64))
        engine.warm_up(max_seconds=10)
        (limit,) = [pace.limit.rows for pace in engine._paces.values()]
        assert 2 <= limit < 64
        caplog.clear()
        for seed in range(limit):
            engine.admit(str(seed), "large", make_large(seed))
        assert len(latents_of(run_out(engine))) == limit
    assert "no memory" not in caplog.text


def test_videos_are_decoded_beside_the_steps_of_others(large: ResidentModels, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[NDArray[np.uint8]] = []

    def write(frames: NDArray[np.uint8], *_: object) -> None:
        written.append(frames.copy())

    monkeypatch.setattr(worker.finishing, "_write", write)
    model: ResidentModel = large["large"]
    engine = Engine(large, Everybody(), EngineSettings())
    finisher = Finisher(lambda name, folder: name, capacity=8)
    expected: list[NDArray[np.uint8]] = []
    try:
        for seed in range(6):  # each joins those that are under way
            engine.admit(str(seed), "large", make_large(seed))
            for latents in latents_of(engine.step()).values():
                expected.append(alone_frames(model, latents))
                finisher.submit(str(len(expected)), model, latents, 8)
        for latents in latents_of(run_out(engine)).values():
            expected.append(alone_frames(model, latents))
            finisher.submit(str(len(expected)), model, latents, 8)
    finally:
        results = results_of(finisher, len(expected))
        finisher.close()
    assert all(isinstance(result, Finished) for result in results), results
    assert len(written) == 6
    for frames, wanted in zip(written, expected, strict=True):
        assert np.array_equal(frames, wanted)


def alone_frames(model: ResidentModel, latents: torch.Tensor) -> NDArray[np.uint8]:
    return model.checkpoint.vae.decode(latents.clone()).numpy()


def test_a_request_goes_on_on_another_device() -> None:
    wish = make_generation(num_inference_steps=6, sampler="ddpm_spaced", condition=2)
    here = Engine(make_models("hybrid", "cuda"), RandomPolicy(), EngineSettings())
    here.admit("a", "class", wish)
    for _ in range(3):
        here.step()
    snapshot = Snapshot.from_bytes(here.snapshot("a").to_bytes())
    there = Engine(make_models("hybrid"), RandomPolicy(), EngineSettings())
    there.admit("a", "class", wish, snapshot)
    latents = latents_of(run_out(there))["a"]
    expected = alone(make_models("hybrid")["class"], wish)
    assert (latents - expected).norm() < 1e-3 * expected.norm()


def test_the_noise_is_that_of_the_cpu() -> None:
    wish = make_generation(num_inference_steps=4, condition=1)
    expected = alone(make_models("hybrid")["class"], wish)
    latents = alone(make_models("hybrid", "cuda")["class"], wish).cpu()
    assert (latents - expected).norm() < 1e-3 * expected.norm()
