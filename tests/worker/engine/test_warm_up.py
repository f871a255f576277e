"""Measurements before the first request."""

import pytest
import torch

from models.transformer import Transformer
from tests.worker.engines import denoise_alone, latents_of, make_generation, make_models, run_until_done
from worker.engine.engine import Engine, EngineSettings
from worker.engine.scheduler import Scheduler

MODELS = make_models("hybrid")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    rows: list[int] = []
    forward = Transformer.forward

    def counting(self: Transformer, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(len(latents))
        if len(latents) > 4:
            torch.empty(1 << 60)
        return forward(self, latents, *rest)

    monkeypatch.setattr(Transformer, "forward", counting)
    return rows


# One pass that is left out, and as many as the latency model needs.
ONES, TWOS = [1] * 4, [2] * 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (EngineSettings(max_batch_rows=4), [*ONES, *TWOS, 4, 4, 4, 4]),
        (EngineSettings(max_batch_rows=3), [*ONES, *TWOS]),
        (EngineSettings(max_batch_rows=4, deterministic=True), [*ONES, *TWOS, *TWOS, *TWOS]),
        (EngineSettings(max_batch_rows=16), [*ONES, *TWOS, 4, 4, 4, 4, 8]),  # there is no memory for 8 rows
    ],
)
def test_every_loaded_model_is_measured_by_rows(
    passes: list[int], settings: EngineSettings, expected: list[int]
) -> None:
    loaded = [MODELS[name] for name in ("none", "class", "text")]
    engine = Engine(MODELS, Scheduler(), settings)
    engine.warm_up(max_seconds=60)
    assert passes == expected * len(loaded)
    assert set(engine.cost_per_second()) == {"none", "class", "text"}


def test_warm_up_ends_at_its_time_limit(passes: list[int]) -> None:
    assert MODELS["class"]
    engine = Engine(MODELS, Scheduler(), EngineSettings(max_batch_rows=4))
    engine.warm_up(max_seconds=0)
    assert len(passes) <= len(MODELS.loaded)
    assert set(passes) <= {1}


def test_warm_up_does_not_change_results() -> None:
    engine = Engine(MODELS, Scheduler(), EngineSettings(deterministic=True))
    engine.warm_up(max_seconds=60)
    generation = make_generation("text")
    engine.admit("a", "text", generation)
    assert torch.equal(latents_of(run_until_done(engine))["a"], denoise_alone(MODELS["text"], generation))
