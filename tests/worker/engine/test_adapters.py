"""Requests with adapters in the engine. test_engine_equality.py checks their latents in random sequences, too."""

from dataclasses import replace

import pytest
import torch

from models.generate import Generation
from tests.models.adapters.adapter_folders import make_scaled
from tests.models.transformers import make_config
from tests.worker.engines import (
    FullBatchScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_models,
    run_until_done,
)
from worker.engine.engine import Engine, EngineSettings
from worker.engine.snapshot import Snapshot

MODELS = make_models("hybrid")
CONFIG = MODELS["text"].checkpoint.config


def make_engine(**settings: bool | int) -> Engine:
    return Engine(MODELS, FullBatchScheduler(), EngineSettings(**settings))


def with_adapters(*seeds_and_scales: tuple[int, float], seed: int = 1) -> Generation:
    return replace(make_generation("text", seed=seed), adapters=make_scaled(CONFIG, *seeds_and_scales))


def test_requests_with_different_adapters_share_a_pass() -> None:
    generations = {"none": with_adapters(), "one": with_adapters((0, 1.0)), "two": with_adapters((0, 0.5), (1, 1.0))}
    engine = make_engine()
    for request_id, generation in generations.items():
        engine.admit(request_id, "text", generation)
    assert {event.step for event in engine.step()} == {1}, "all of them have done the first step"
    latents = latents_of(run_until_done(engine))
    for request_id, generation in generations.items():
        expected = denoise_alone(MODELS["text"], generation)
        assert (latents[request_id] - expected).norm() < 1e-3 * expected.norm()
    assert not torch.allclose(latents["none"], latents["one"], rtol=0.1)


def test_deterministic_requests_with_adapters_equal_the_plain_loop_bit_for_bit() -> None:
    engine = make_engine(deterministic=True)
    generations = {str(number): with_adapters((number, 1.0), seed=number) for number in range(3)}
    for request_id, generation in generations.items():
        engine.admit(request_id, "text", generation)
    latents = latents_of(run_until_done(engine))
    for request_id, generation in generations.items():
        assert torch.equal(latents[request_id], denoise_alone(MODELS["text"], generation))


def test_a_pass_in_several_calls_keeps_each_rows_adapter() -> None:
    """A long video has more rows than fit into one call of the model."""
    generation = replace(with_adapters((0, 1.0)), num_frames=7)
    engine = make_engine(max_batch_rows=1)
    engine.admit("long", "text", generation)
    latents = latents_of(run_until_done(engine))["long"]
    expected = denoise_alone(MODELS["text"], generation)
    assert (latents - expected).norm() < 1e-3 * expected.norm()


def test_a_snapshot_resumes_with_the_same_adapters_only() -> None:
    generation = with_adapters((0, 1.0), (1, 0.5))
    engine = make_engine()
    engine.admit("a", "text", generation)
    engine.step()
    snapshot = Snapshot.from_bytes(engine.snapshot("a").to_bytes())
    resumed = make_engine()
    for other in (with_adapters(), with_adapters((0, 1.0)), with_adapters((0, 1.0), (1, 0.6))):
        with pytest.raises(ValueError, match="other adapters, or an adapter has changed"):
            resumed.admit("a", "text", other, snapshot)
    resumed.admit("a", "text", generation, snapshot)
    expected = latents_of(run_until_done(engine))["a"]
    assert torch.equal(latents_of(run_until_done(resumed))["a"], expected)


def test_a_snapshot_without_adapters_has_the_bytes_of_before() -> None:
    engine = make_engine()
    engine.admit("a", "text", with_adapters())
    engine.step()
    assert b"adapters" not in engine.snapshot("a").to_bytes()


def test_an_adapter_of_another_model_is_refused() -> None:
    wrong = replace(make_generation("text"), adapters=make_scaled(make_config(), (0, 1.0)))
    with pytest.raises(ValueError, match="an adapter that was read for another model"):
        make_engine().admit("a", "text", wrong)
