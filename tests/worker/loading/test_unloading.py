"""More models than fit into memory: the least recently used model is unloaded."""

import shutil
from pathlib import Path

import pytest
import torch

from jobs.cards import write_card
from models.transformer import Transformer
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card
from tests.worker.engines import denoise_alone, latents_of, make_generation, make_models, run_until_done
from worker.engine.engine import Engine, EngineSettings, Failed
from worker.engine.scheduler import Scheduler
from worker.errors import ModelUnavailableError, StartupError
from worker.loading.model_cache import LoadedModel, ModelCache, load_models

SOURCE = make_models("local")
DETERMINISTIC = EngineSettings(deterministic=True)


class Loads:
    """Loads the models of `SOURCE`. The next `refusals` loads find no memory, the next `faults` a bad file."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refusals = 0
        self.faults = 0

    def __call__(self, model: str) -> LoadedModel:
        if self.refusals:
            self.refusals -= 1
            raise torch.OutOfMemoryError("no memory")
        if self.faults:
            self.faults -= 1
            raise StartupError("spoiled")
        self.names.append(model)
        return SOURCE[model]


@pytest.fixture
def loads() -> Loads:
    return Loads()


def make_cache(loads: Loads, max_bytes: int | None = None) -> ModelCache:
    return ModelCache(SOURCE.cards, loads, max_bytes)


def bytes_of(*models: str) -> int:
    cache = make_cache(Loads())
    assert all(cache[model] for model in models)
    return cache.loaded_bytes


def test_a_model_is_loaded_once_while_memory_lasts(loads: Loads) -> None:
    cache = make_cache(loads)
    assert list(cache) == ["none", "class", "text"]
    assert loads.names == []
    for model in ("class", "text", "class", "none", "text"):
        assert cache[model] is SOURCE[model]
    assert loads.names == ["class", "text", "none"]
    assert cache.load_seconds("class") == 0
    with pytest.raises(KeyError):
        cache["unknown"]


def test_the_least_recently_used_model_is_unloaded(loads: Loads) -> None:
    cache = make_cache(loads, max_bytes=bytes_of("class", "text", "none") - 1)
    for model in ("class", "text", "class", "none"):
        assert cache[model] is SOURCE[model]
    assert (cache.load_seconds("class"), cache.load_seconds("none")) == (0, 0)
    assert cache.load_seconds("text") > 0
    assert cache["text"] is SOURCE["text"]
    assert cache.load_seconds("class") > 0
    assert loads.names == ["class", "text", "none", "text"]


def test_one_model_is_loaded_however_large(loads: Loads) -> None:
    cache = make_cache(loads, max_bytes=1)
    for model in ("class", "text", "class"):
        assert cache[model] is SOURCE[model]
    assert loads.names == ["class", "text", "class"]


def test_out_of_memory_unloads_other_models_one_by_one(loads: Loads) -> None:
    cache = make_cache(loads)
    assert cache["class"]
    assert cache["text"]
    loads.refusals = 1
    assert cache["none"]
    assert cache.load_seconds("class") > 0
    assert cache.load_seconds("text") == 0
    loads.refusals = 3
    with pytest.raises(torch.OutOfMemoryError):
        cache["class"]
    assert cache["class"]


def test_an_unusable_checkpoint_is_named_without_its_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_tiny_checkpoint(tmp_path / "one", tiny_card("one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    write_card(tmp_path / "two", tiny_card("two"))
    cache = load_models(tmp_path, torch.device("cpu"), torch.float32, max_bytes=1)
    assert list(cache) == ["one", "two"]
    (tmp_path / "one" / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="the model 'one' no longer loads") as caught:
        cache["one"]
    assert str(tmp_path) not in caught.value.message
    assert str(tmp_path) in caplog.text


def test_a_checkpoint_without_memory_at_all_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_checkpoint(tmp_path / "tiny")
    monkeypatch.setattr("worker.loading.model_cache.load_checkpoint", lambda *_, **__: torch.empty(1 << 60))
    with pytest.raises(StartupError, match=r"no memory for the checkpoint in .*tiny"):
        load_models(tmp_path, torch.device("cpu"), torch.float32)


def test_models_that_do_not_fit_together_run_one_after_the_other(loads: Loads) -> None:
    cache = make_cache(loads, max_bytes=max(bytes_of("class"), bytes_of("text")))
    engine = Engine(cache, Scheduler(), DETERMINISTIC)
    for i, model in enumerate(["class", "text", "class", "text"]):
        engine.admit(f"{model} {i}", model, make_generation(model, seed=i))
    latents = latents_of(run_until_done(engine))
    for i, model in enumerate(["class", "text", "class", "text"]):
        assert torch.equal(latents[f"{model} {i}"], denoise_alone(SOURCE[model], make_generation(model, seed=i)))
    # At most one load for each admission, then one for the requests of each model together.
    assert len(loads.names) <= 6


def test_an_unused_model_is_unloaded_before_the_batch_shrinks(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(loads)
    engine = Engine(cache, Scheduler(), EngineSettings())
    assert cache["text"]
    forward = Transformer.forward
    shapes: list[int] = []

    def refuse_once(self: Transformer, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        shapes.append(len(latents))
        if len(shapes) == 1:
            torch.empty(1 << 60)
        return forward(self, latents, *rest)

    monkeypatch.setattr(Transformer, "forward", refuse_once)
    engine.admit("a", "class", make_generation())
    assert len(engine.step()) == 1
    assert shapes == [2, 2]
    assert cache.load_seconds("text") > 0


def test_requests_of_a_model_that_no_longer_loads_fail(loads: Loads) -> None:
    cache = make_cache(loads)
    engine = Engine(cache, Scheduler(), EngineSettings())
    engine.admit("a", "class", make_generation())
    assert cache.unload_one(keep=[])
    loads.faults = 1
    (failed,) = engine.step()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ModelUnavailableError)
