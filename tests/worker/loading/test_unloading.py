"""More models than fit into memory: the least recently used model is unloaded."""

from pathlib import Path

import pytest
import torch

from models.transformer import Transformer
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.worker.engines import denoise_alone, latents_of, make_generation, make_models, run_until_done
from worker.engine.engine import Engine, EngineSettings, Progress
from worker.engine.scheduler import Scheduler
from worker.errors import StartupError
from worker.loading.model_cache import LoadedModel, ModelCache, load_models

SOURCE = make_models("local")
DETERMINISTIC = EngineSettings(deterministic=True)


class Loads:
    """Loads the models of `SOURCE`. The next `refusals` loads find no memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refusals = 0

    def __call__(self, model: str) -> LoadedModel:
        if self.refusals:
            self.refusals -= 1
            raise torch.OutOfMemoryError("no memory")
        self.names.append(model)
        return SOURCE[model]


@pytest.fixture
def loads() -> Loads:
    return Loads()


def make_cache(loads: Loads, max_bytes: int | None = None) -> ModelCache:
    return ModelCache(SOURCE.cards, loads, max_bytes)


def use(cache: ModelCache, *models: str) -> None:
    for model in models:
        assert (cache[model] if model in cache.loaded else cache.load(model)) is SOURCE[model]


def bytes_of(*models: str) -> int:
    cache = make_cache(Loads())
    use(cache, *models)
    return cache.loaded_bytes


def test_a_model_is_there_once_it_is_loaded(loads: Loads) -> None:
    cache = make_cache(loads)
    assert list(cache.cards) == ["none", "class", "text"]
    with pytest.raises(KeyError):
        cache["class"]
    use(cache, "class", "text", "class", "none", "text")
    assert loads.names == ["class", "text", "none"]
    assert cache.loaded == ["class", "none", "text"]
    with pytest.raises(KeyError):
        cache["unknown"]


def test_the_least_recently_used_model_is_unloaded(loads: Loads) -> None:
    cache = make_cache(loads, max_bytes=bytes_of("class", "text", "none") - 1)
    use(cache, "class", "text", "class", "none")
    assert cache.loaded == ["class", "none"]
    use(cache, "text")
    assert cache.loaded == ["none", "text"]
    assert loads.names == ["class", "text", "none", "text"]


def test_one_model_is_loaded_however_large(loads: Loads) -> None:
    cache = make_cache(loads, max_bytes=1)
    use(cache, "class", "text", "class")
    assert loads.names == ["class", "text", "class"]


def test_out_of_memory_unloads_other_models_one_by_one(loads: Loads) -> None:
    cache = make_cache(loads)
    use(cache, "class", "text")
    loads.refusals = 1
    use(cache, "none")
    assert cache.loaded == ["text", "none"]
    loads.refusals = 3
    with pytest.raises(torch.OutOfMemoryError):
        cache.load("class")
    use(cache, "class")


def test_models_that_are_pinned_or_that_requests_are_prepared_for_stay(loads: Loads) -> None:
    cache = make_cache(loads)
    use(cache, "class", "text", "none")
    cache.pinned, cache.preparing = {"class"}, {"text"}
    assert cache.unload_one(keep=[])
    assert cache.loaded == ["class", "text"]
    assert not cache.unload_one(keep=[])


def test_a_checkpoint_without_memory_at_all_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_checkpoint(tmp_path / "tiny")
    monkeypatch.setattr("worker.loading.model_cache.load_checkpoint", lambda *_, **__: torch.empty(1 << 60))
    with pytest.raises(StartupError, match=r"no memory for the checkpoint in .*tiny"):
        load_models(tmp_path, torch.device("cpu"), torch.float32)


def test_requests_of_an_unloaded_model_wait_until_it_is_loaded(loads: Loads) -> None:
    cache = make_cache(loads)
    use(cache, "class", "text")
    engine = Engine(cache, Scheduler(), DETERMINISTIC)
    for model in ("class", "text"):
        engine.admit(model, model, make_generation(model))
    cache.unload("text")
    latents = latents_of(run_until_done(engine))
    assert set(latents) == {"class"}
    assert engine.request_ids == ("text",)
    use(cache, "text")
    latents |= latents_of(run_until_done(engine))
    for model in ("class", "text"):
        assert torch.equal(latents[model], denoise_alone(SOURCE[model], make_generation(model)))


def test_an_unused_model_is_unloaded_before_the_batch_shrinks(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(loads)
    engine = Engine(cache, Scheduler(), EngineSettings())
    use(cache, "text", "class")
    forward = Transformer.forward
    shapes: list[int] = []

    def refuse_once(self: Transformer, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        shapes.append(len(latents))
        if len(shapes) == 1:
            torch.empty(1 << 60)
        return forward(self, latents, *rest)

    monkeypatch.setattr(Transformer, "forward", refuse_once)
    engine.admit("a", "class", make_generation())
    assert engine.step() == [Progress("a", 1, 4)]
    assert shapes == [2, 2]
    assert cache.loaded == ["class"]
