"""CUDA only: two steps in flight, memory measured and refused, decoding in a stream of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import worker.output.video_files
from models.generate import Generation
from models.registry import published_model
from models.transformer import Transformer
from tests.worker.conftest import finishing
from tests.worker.engines import (
    FullBatchScheduler,
    RandomScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_model,
    make_models,
    run_until_done,
)
from worker.engine.engine import Engine, EngineSettings, Progress
from worker.engine.snapshot import Snapshot
from worker.loading.model_cache import LoadedModel, ModelCache
from worker.messages import JobFinished

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

FRAMES = 16
MIB = 1 << 20


@pytest.fixture(scope="module")
def large() -> ModelCache:
    """A model whose rows take some 100 MiB each."""
    config = published_model("Latte-S/2", num_frames=FRAMES, image_size=256, num_classes=7).config
    model = make_model(replace(config, depth=2), "cuda")
    models = ModelCache({"large": model.card}, {"large": model}.__getitem__)
    models.load("large")
    return models


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


def test_two_steps_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    forward = Transformer.forward

    def counting(self: Transformer, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        started.append(len(latents))
        return forward(self, latents, *rest)

    monkeypatch.setattr(Transformer, "forward", counting)
    engine = Engine(make_models("hybrid", "cuda"), FullBatchScheduler(), EngineSettings(cuda_graphs=False))
    engine.admit("a", "class", make_generation(num_inference_steps=4))
    engine.admit("b", "class", make_generation(num_inference_steps=4, seed=2))
    assert engine.step() == [Progress("a", 1, 4), Progress("b", 1, 4)]
    assert len(started) == 2
    assert engine.evict("b")
    assert engine.step() == [Progress("a", 2, 4)]
    assert list(latents_of(run_until_done(engine))) == ["a"]


def test_short_memory_makes_the_batch_smaller_and_loses_no_request(large: ModelCache) -> None:
    rows: list[int] = []
    engine = Engine(
        large, FullBatchScheduler(), EngineSettings(cuda_graphs=False), on_pass=lambda _, count, __: rows.append(count)
    )
    generations = {str(seed): make_large(seed) for seed in range(8)}
    expected = {name: denoise_alone(large["large"], generation) for name, generation in generations.items()}
    for name, generation in generations.items():
        engine.admit(name, "large", generation)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    engine.step()
    with memory_left((torch.cuda.max_memory_allocated() - before) // 2):
        latents = latents_of(run_until_done(engine))
    assert rows[0] == 8
    assert max(rows[2:]) < 8  # one was in flight when memory got short
    assert sum(rows) == 8 * 3
    for name, result in latents.items():
        assert (result - expected[name]).norm() < 1e-3 * expected[name].norm()
    assert set(latents) == set(generations)


def test_warm_up_measures_the_rows_that_fit_into_memory(large: ModelCache, caplog: pytest.LogCaptureFixture) -> None:
    with memory_left(2048 * MIB):
        engine = Engine(large, FullBatchScheduler(), EngineSettings(max_batch_rows=64, max_slots=64))
        engine.warm_up(max_seconds=10)
        limit = engine.row_limits()["large"]
        assert 2 <= limit < 64
        caplog.clear()
        for seed in range(limit):
            engine.admit(str(seed), "large", make_large(seed))
        assert len(latents_of(run_until_done(engine))) == limit
    assert "out of memory" not in caplog.text


def test_videos_are_decoded_during_the_steps_of_others(large: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[NDArray[np.uint8]] = []

    def write(frames: NDArray[np.uint8], *_: object) -> None:
        written.append(frames.copy())

    monkeypatch.setitem(worker.output.video_files.WRITERS, "video", write)
    for name in ("write_thumbnail", "write_spritesheet"):
        monkeypatch.setattr(worker.output.video_files, name, lambda *_: None)
    model: LoadedModel = large["large"]
    engine = Engine(large, FullBatchScheduler(), EngineSettings())
    expected: list[NDArray[np.uint8]] = []
    with finishing(lambda *_: {}) as finisher:
        for seed in range(6):  # each joins the active requests
            engine.admit(str(seed), "large", make_large(seed))
            for latents in latents_of(engine.step()).values():
                expected.append(alone_frames(model, latents))
                finisher.submit(str(len(expected)), model, latents)
        for latents in latents_of(run_until_done(engine)).values():
            expected.append(alone_frames(model, latents))
            finisher.submit(str(len(expected)), model, latents)
        results = finisher.wait_for_results(len(expected))
    assert all(isinstance(result, JobFinished) for result in results), results
    assert len(written) == 6
    for frames, wanted in zip(written, expected, strict=True):
        assert np.array_equal(frames, wanted)


def alone_frames(model: LoadedModel, latents: torch.Tensor) -> NDArray[np.uint8]:
    return model.checkpoint.vae.decode(latents.clone()).numpy()


def test_a_request_resumes_on_another_device() -> None:
    generation = make_generation(num_inference_steps=6, sampler="ddpm_spaced", condition=2)
    here = Engine(make_models("hybrid", "cuda"), RandomScheduler(), EngineSettings())
    here.admit("a", "class", generation)
    for _ in range(3):
        here.step()
    snapshot = Snapshot.from_bytes(here.snapshot("a").to_bytes())
    there = Engine(make_models("hybrid"), RandomScheduler(), EngineSettings())
    there.admit("a", "class", generation, snapshot)
    latents = latents_of(run_until_done(there))["a"]
    expected = denoise_alone(make_models("hybrid")["class"], generation)
    assert (latents - expected).norm() < 1e-3 * expected.norm()


def test_the_noise_is_that_of_the_cpu() -> None:
    generation = make_generation(num_inference_steps=4, condition=1)
    expected = denoise_alone(make_models("hybrid")["class"], generation)
    latents = denoise_alone(make_models("hybrid", "cuda")["class"], generation).cpu()
    assert (latents - expected).norm() < 1e-3 * expected.norm()
