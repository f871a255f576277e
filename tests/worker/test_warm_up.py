"""What is measured before the first request."""

from collections.abc import Iterator

import pytest
import torch

from models.transformer import Transformer
from tests.worker.engines import alone, latents_of, make_generation, make_models, run_out
from worker.engine import Engine, EngineSettings
from worker.policy import Policy

MODELS = make_models("hybrid")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


# One that is left out, and as many as the curve wants before it trusts them.
ONES, TWOS = [1] * 4, [2] * 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (EngineSettings(max_batch_rows=4), [*ONES, *TWOS, 4, 4, 4, 4]),
        (EngineSettings(max_batch_rows=3), [*ONES, *TWOS]),
        (EngineSettings(max_batch_rows=4, deterministic=True), [*ONES, *TWOS, *TWOS, *TWOS]),
        (EngineSettings(max_batch_rows=16), [*ONES, *TWOS, 4, 4, 4, 4, 8]),  # for which there is no memory
    ],
)
def test_every_loaded_model_is_timed_by_rows(passes: list[int], settings: EngineSettings, expected: list[int]) -> None:
    loaded = [MODELS[name] for name in ("none", "class", "text")]
    engine = Engine(MODELS, Policy(), settings)
    engine.warm_up(max_seconds=60)
    assert passes == expected * len(loaded)
    assert set(engine.cost_per_second()) == {"none", "class", "text"}


def test_time_for_it_is_limited(passes: list[int]) -> None:
    assert MODELS["class"]
    engine = Engine(MODELS, Policy(), EngineSettings(max_batch_rows=4))
    engine.warm_up(max_seconds=0)
    assert len(passes) <= len(MODELS.loaded)
    assert set(passes) <= {1}


def test_requests_are_the_same_after_it() -> None:
    engine = Engine(MODELS, Policy(), EngineSettings(deterministic=True))
    engine.warm_up(max_seconds=60)
    generation = make_generation("text")
    engine.admit("a", "text", generation)
    assert torch.equal(latents_of(run_out(engine))["a"], alone(MODELS["text"], generation))
