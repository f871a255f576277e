"""CUDA graphs and shared deterministic passes, which only a CUDA device has."""

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.config import Conditioning
from models.kernels.support import find_obstacle, fuse
from models.registry import published_model
from tests.models.transformers import make_config
from tests.worker.engines import (
    DESIGNS,
    FullBatchScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_model,
    make_models,
    run_until_done,
)
from worker.device import free_cached_memory
from worker.engine.engine import Engine, EngineSettings
from worker.engine.passes.graphs import StepGraphs
from worker.engine.profile.exact_rows import find_exact_rows
from worker.loading.model_cache import LoadedModel, ModelCache

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

FRAMES = 16
MIB = 1 << 20


def make_fused(model: LoadedModel, dtype: torch.dtype = torch.bfloat16) -> LoadedModel:
    device = torch.device("cuda")
    assert find_obstacle(device, dtype) is None
    model.checkpoint.transformer.to(device, dtype)
    model.checkpoint.vae.vae.to(device, dtype)
    fuse(model.checkpoint.transformer, model.checkpoint.vae)
    return LoadedModel(model.card, replace(model.checkpoint, fast=True))


def make_small(name: str = "FrameDiTH-S/128-512/2-softmax_u-concat") -> LoadedModel:
    config = published_model(name, num_frames=FRAMES, image_size=256, num_classes=3).config
    model = make_model(replace(config, depth=4), "cuda")
    for weight in model.checkpoint.transformer.parameters():
        weight.mul_(0.1)  # otherwise products of this width overflow
    return make_fused(model)


def cache_of(model: LoadedModel, name: str = "class") -> ModelCache:
    models = ModelCache({name: model.card}, lambda _: model)
    models.load(name)
    return models


def run(models: ModelCache, settings: EngineSettings, wishes: dict[str, Any]) -> dict[str, torch.Tensor]:
    engine = Engine(models, FullBatchScheduler(), settings)
    for name, (model, wish) in wishes.items():
        engine.admit(name, model, wish)
    return latents_of(run_until_done(engine))


@pytest.mark.parametrize("conditioning", Conditioning)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("is_fused", [False, True])
def test_replays_equal_uncaptured_steps_bit_for_bit(design: str, conditioning: Conditioning, is_fused: bool) -> None:
    kind = conditioning.value
    models = make_models(design, "cuda")
    if is_fused:
        config = make_config(conditioning, depth=2, width=32, **DESIGNS[design])
        models = cache_of(make_fused(make_model(config, "cuda")), kind)
    wishes = {
        "guided": (kind, make_generation(kind, seed=1, num_inference_steps=6, sampler="ddim")),
        "noisy": (kind, make_generation(kind, seed=2, num_inference_steps=5, sampler="ddpm_spaced")),
        "unguided": (kind, make_generation(kind, seed=3, num_inference_steps=7, sampler="unipc", guidance_scale=1.0)),
        "known": (kind, make_generation(kind, seed=4, num_inference_steps=6, sampler="dpmpp_2m", known=[0])),
    }
    plain = run(models, EngineSettings(cuda_graphs=False), wishes)
    for _ in range(2):
        captured = run(models, EngineSettings(), wishes)
        assert captured.keys() == plain.keys() == wishes.keys()
        assert all(torch.equal(latents, plain[name]) for name, latents in captured.items())


def test_a_step_is_captured_at_its_second_run_and_then_replayed() -> None:
    graphs, calls = StepGraphs(max_graphs=2), []

    def step(inputs: Any) -> tuple[torch.Tensor, ...]:
        calls.append(inputs[0].shape)
        return (inputs[0] * 2,)

    def double(size: int) -> None:
        value = torch.randn(size, device="cuda")
        (result,) = graphs.run(step, (value, None))
        results.append((value, result))

    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for size, calls_then in [(3, 1), (3, 2), (3, 2), (4, 3), (4, 4), (3, 4), (4, 4), (3, 4)]:
        double(size)
        assert len(calls) == calls_then
    assert all(torch.equal(result, value * 2) for value, result in results)  # none was overwritten
    for _ in range(2):
        double(5)
    assert len(graphs) == 2
    assert graphs.clear()
    assert not graphs.clear()


UNCAPTURABLE = """
import logging, torch
from worker.engine.passes.graphs import StepGraphs

logging.basicConfig()
graphs = StepGraphs()

def step(inputs):
    inputs[0].sum().item()  # waits for the device
    return (inputs[0] + 1,)

for _ in range(4):
    value = torch.randn(3).to("cuda")
    (result,) = graphs.run(step, (value,))
    assert torch.equal(result, value + 1)
assert len(graphs) == 0
"""


def test_a_step_that_cannot_be_captured_runs_without_a_graph() -> None:
    """In a process of its own: PyTorch's allocator may not recover from a capture that failed."""
    result = subprocess.run([sys.executable, "-c", UNCAPTURABLE], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("could not be captured") == 1


def test_graphs_go_with_their_model() -> None:
    def used() -> tuple[int, set[Any]]:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(), {part["segment_pool_id"] for part in torch.cuda.memory_snapshot()}

    models = ModelCache({"class": make_small().card}, lambda _: make_small())
    engine = Engine(models, FullBatchScheduler(), EngineSettings())

    def make_video() -> None:
        models.load("class")
        engine.admit("a", "class", make_generation(num_frames=FRAMES))
        assert latents_of(run_until_done(engine))
        assert models.unload_one(keep=[])

    for _ in range(3):  # buffers of libraries may come with the first ones
        make_video()
    before = used()
    for _ in range(3):
        make_video()
    assert used() == before


@contextmanager
def memory_left(num_bytes: int) -> Iterator[None]:
    torch.cuda.empty_cache()
    ballast = torch.empty(torch.cuda.mem_get_info()[0] - num_bytes, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del ballast
        torch.cuda.empty_cache()


def test_graphs_are_dropped_first_when_memory_is_short(caplog: pytest.LogCaptureFixture) -> None:
    models = cache_of(make_small())
    rows: list[int] = []
    engine = Engine(models, FullBatchScheduler(), EngineSettings(), on_pass=lambda _, count, __: rows.append(count))
    wishes = {str(seed): make_generation(seed=seed, num_frames=FRAMES, num_inference_steps=8) for seed in range(4)}
    for name, wish in wishes.items():
        engine.admit(name, "class", wish)
    for _ in range(4):
        engine.step()  # captured
    torch.cuda.synchronize()
    with memory_left(64 * MIB):
        engine.evict("3")  # another size, which has no graph
        latents = latents_of(run_until_done(engine))
    assert "CUDA graphs dropped" in caplog.text
    assert set(latents) == {"0", "1", "2"}
    assert set(rows) == {8, 6}


def test_capturing_goes_on_beside_other_threads() -> None:
    """They allocate, free, wait for the device and give memory back meanwhile, as the finisher does."""
    models, is_over, errors = cache_of(make_small()), threading.Event(), []

    def disturb() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while not is_over.is_set():
                    square = torch.randn(2048, 2048, device="cuda")
                    (square @ square).sum().item()
                    del square
                    free_cached_memory()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=disturb) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for count in range(1, 9):
            wishes = {
                str(seed): ("class", make_generation(seed=seed, num_frames=FRAMES, num_inference_steps=5))
                for seed in range(count)
            }
            assert len(run(models, EngineSettings(max_batch_rows=16), wishes)) == count
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert not errors


@pytest.mark.parametrize("name", ["FrameDiTH-S/128-512/2-softmax_u-concat", "Latte-S/2", "DiT3D-S/2"])
def test_deterministic_requests_share_exact_passes(name: str) -> None:
    model = make_small(name)
    models = cache_of(model)
    exact_rows = find_exact_rows(model.checkpoint, 8, is_late=lambda: False)
    assert 1 in exact_rows
    rows: list[int] = []
    settings = EngineSettings(deterministic=True)
    engine = Engine(models, FullBatchScheduler(), settings, on_pass=lambda _, count, __: rows.append(count))
    engine.warm_up(max_seconds=60)
    wishes = {
        str(seed): make_generation(
            seed=seed,
            num_frames=FRAMES,
            num_inference_steps=4 + seed,
            guidance_scale=[1.0, 4.0][seed % 2],
            sampler=["ddim", "ddpm_spaced"][seed // 2 % 2],
        )
        for seed in range(5)
    }
    for request_id, wish in wishes.items():
        engine.admit(request_id, "class", wish)
    latents = latents_of(run_until_done(engine))
    for request_id, wish in wishes.items():
        assert torch.equal(latents[request_id], denoise_alone(model, wish))
    if {2, 4, 8} <= exact_rows:
        assert max(rows) > 2
