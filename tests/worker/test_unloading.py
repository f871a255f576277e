"""More models than there is memory for: the least recently used one goes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.cards import write_card
from models.transformer import Transformer
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card
from tests.worker.engines import alone, latents_of, make_generation, make_models, run_out
from worker.engine import Engine, EngineSettings, Failed
from worker.errors import ModelUnavailableError, StartupError
from worker.policy import Policy
from worker.resident import ResidentModel, ResidentModels, load_models

SOURCE = make_models("local")
DETERMINISTIC = EngineSettings(deterministic=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Loads:
    """Loads `SOURCE`'s models, and refuses memory as often as `refusals` says."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refusals = 0

    def __call__(self, model: str) -> ResidentModel:
        if self.refusals:
            self.refusals -= 1
            raise torch.OutOfMemoryError("no memory")
        self.names.append(model)
        return SOURCE[model]


@pytest.fixture
def loads() -> Loads:
    return Loads()


def make_pool(loads: Loads, max_bytes: int | None = None) -> ResidentModels:
    return ResidentModels(SOURCE.cards, loads, max_bytes)


def bytes_of(*models: str) -> int:
    pool = make_pool(Loads())
    return sum(pool._num_bytes[model] for model in models if pool[model])


def test_a_model_is_loaded_once_while_memory_lasts(loads: Loads) -> None:
    pool = make_pool(loads)
    assert list(pool) == ["none", "class", "text"]
    assert loads.names == []
    for model in ("class", "text", "class", "none", "text"):
        assert pool[model] is SOURCE[model]
    assert loads.names == ["class", "text", "none"]
    assert pool.load_seconds("class") == 0
    with pytest.raises(KeyError):
        pool["unknown"]


def test_the_least_recently_used_model_makes_room(loads: Loads) -> None:
    pool = make_pool(loads, max_bytes=bytes_of("class", "text", "none") - 1)
    for model in ("class", "text", "class", "none"):
        assert pool[model] is SOURCE[model]
    assert (pool.load_seconds("class"), pool.load_seconds("none")) == (0, 0)
    assert pool.load_seconds("text") > 0
    assert pool["text"] is SOURCE["text"]
    assert pool.load_seconds("class") > 0
    assert loads.names == ["class", "text", "none", "text"]


def test_one_model_is_taken_however_large(loads: Loads) -> None:
    pool = make_pool(loads, max_bytes=1)
    for model in ("class", "text", "class"):
        assert pool[model] is SOURCE[model]
    assert loads.names == ["class", "text", "class"]


def test_when_a_device_refuses_memory_others_are_unloaded_one_by_one(loads: Loads) -> None:
    pool = make_pool(loads)
    assert pool["class"]
    assert pool["text"]
    loads.refusals = 1
    assert pool["none"]
    assert pool.load_seconds("class") > 0
    assert pool.load_seconds("text") == 0
    loads.refusals = 3
    with pytest.raises(torch.OutOfMemoryError):
        pool["class"]
    assert pool["class"]


def test_a_checkpoint_that_was_spoiled_meanwhile_is_named_without_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_tiny_checkpoint(tmp_path / "one", tiny_card("one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    write_card(tmp_path / "two", tiny_card("two"))
    pool = load_models(tmp_path, torch.device("cpu"), torch.float32, max_bytes=1)
    assert list(pool) == ["one", "two"]
    (tmp_path / "one" / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="the model 'one' does not load any more") as caught:
        pool["one"]
    assert str(tmp_path) not in caught.value.message
    assert str(tmp_path) in caplog.text


def test_a_checkpoint_for_which_there_is_no_memory_at_all_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_checkpoint(tmp_path / "tiny")
    monkeypatch.setattr("worker.resident.load_checkpoint", lambda *_, **__: torch.empty(1 << 60))
    with pytest.raises(StartupError, match=r"there is no memory for the checkpoint in .*tiny"):
        load_models(tmp_path, torch.device("cpu"), torch.float32)


def test_models_that_do_not_fit_together_take_turns(loads: Loads) -> None:
    pool = make_pool(loads, max_bytes=max(bytes_of("class"), bytes_of("text")))
    engine = Engine(pool, Policy(), DETERMINISTIC)
    for i, model in enumerate(["class", "text", "class", "text"]):
        engine.admit(f"{model} {i}", model, make_generation(model, seed=i))
    latents = latents_of(run_out(engine))
    for i, model in enumerate(["class", "text", "class", "text"]):
        assert torch.equal(latents[f"{model} {i}"], alone(SOURCE[model], make_generation(model, seed=i)))
    # At most one load for each admission, and then each model's requests together.
    assert len(loads.names) <= 6


def test_a_model_that_nobody_waits_for_goes_before_the_batch_shrinks(
    loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(loads)
    engine = Engine(pool, Policy(), EngineSettings())
    assert pool["text"]
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
    assert pool.load_seconds("text") > 0


def test_requests_of_a_model_that_does_not_load_any_more_fail(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(loads)
    engine = Engine(pool, Policy(), EngineSettings())
    engine.admit("a", "class", make_generation())
    assert pool.unload_one(keep=[])

    def fail(model: str) -> ResidentModel:
        raise StartupError("spoiled")

    monkeypatch.setattr(pool, "_load", fail)
    (failed,) = engine.step()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ModelUnavailableError)
