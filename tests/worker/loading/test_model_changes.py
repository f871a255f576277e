"""Models that come and go while a worker runs: folders, commands of the operator, idle models."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from redis import Redis

from jobs.admission.worker_load import read_loads
from jobs.cards import workers_alive
from jobs.model_commands import pin_model, send_command
from jobs.videos.record import VideoRecord
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card
from tests.worker.conftest import Bench, RunningWorker, wait_for
from worker.build import build_worker
from worker.dispatch import dispatcher
from worker.loading.checkpoint_watch import CheckpointWatch
from worker.loading.model_cache import load_models

LONG = 400  # steps


@pytest.fixture(autouse=True)
def frequent_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats are seconds apart. Their number decides here, and not their time."""
    monkeypatch.setattr(dispatcher, "BEAT_SECONDS", 0.1)


@pytest.fixture
def root(checkpoints: Path, tmp_path: Path) -> Path:
    """A folder with the checkpoint `tiny`."""
    return Path(shutil.copytree(checkpoints, tmp_path / "checkpoints"))


@pytest.fixture
def running(bench: Bench, root: Path, request: pytest.FixtureRequest) -> Iterator[RunningWorker]:
    """A worker over `root`. The parameter are settings."""
    models = load_models(root, torch.device("cpu"), torch.float32)
    watch = CheckpointWatch(root, models.cards)
    changes: dict[str, Any] = getattr(request, "param", {})

    def build(name: str = "w1", **_: Any) -> Any:
        settings = bench.settings.model_copy(update=changes)
        return build_worker(settings, bench.redis, models, name, bench.context.meter, watch=watch)

    bench.worker = build  # type: ignore[method-assign]
    with bench.working() as worker:
        wait_for(lambda: state(bench.redis, "tiny"))
        yield worker


def state(redis: Redis, model: str) -> str | None:
    loads = read_loads(redis)
    return loads["w1"].models.get(model) if "w1" in loads else None


def add(root: Path, model: str) -> Path:
    """Add a folder as a conversion does: complete, by renaming."""
    unfinished = make_tiny_checkpoint(root / f".{model}", tiny_card(model))
    return unfinished.rename(root / model)


def is_started(bench: Bench, record: VideoRecord) -> bool:
    return bench.context.store.get(record.id).step > 0


@pytest.mark.usefixtures("running")
def test_a_new_folder_is_served(bench: Bench, root: Path) -> None:
    waiting = bench.queue(model="later")
    bench.wait_until(bench.queue(), "completed")
    assert bench.context.store.get(waiting.id).status == "queued"
    add(root, "later")
    bench.wait_until(waiting, "completed")
    wait_for(lambda: workers_alive(bench.redis, "later") == {"w1"})
    wait_for(lambda: state(bench.redis, "later") == "loaded")


@pytest.mark.usefixtures("running")
def test_the_model_of_a_vanished_folder_is_withdrawn(bench: Bench, root: Path) -> None:
    add(root, "other")
    wait_for(lambda: state(bench.redis, "other") == "loaded")
    started = bench.queue(model="other", num_inference_steps=LONG)
    wait_for(lambda: is_started(bench, started))
    shutil.rmtree(root / "other")
    wait_for(lambda: workers_alive(bench.redis, "other") == set())
    waiting = bench.queue(model="other")
    bench.wait_until(started, "completed")
    bench.wait_until(bench.queue(), "completed")
    assert bench.context.store.get(waiting.id).status == "queued"
    add(root, "other")
    bench.wait_until(waiting, "completed")


@pytest.mark.usefixtures("running")
def test_a_folder_that_cannot_be_loaded_is_left_out_until_it_changes(bench: Bench, root: Path) -> None:
    waiting = bench.queue(model="broken")
    whole = make_tiny_checkpoint(root / ".broken", tiny_card("broken"))
    weights = (whole / "model.safetensors").read_bytes()
    (whole / "model.safetensors").write_bytes(weights[:100])
    folder = whole.rename(root / "broken")
    add(root, "sound")
    wait_for(lambda: state(bench.redis, "sound") == "loaded")
    bench.wait_until(bench.queue(), "completed")
    assert workers_alive(bench.redis, "broken") == set()
    (folder / "model.safetensors").write_bytes(weights)
    bench.wait_until(waiting, "completed")


@pytest.mark.usefixtures("running")
def test_a_model_is_unloaded_and_loaded_by_command(bench: Bench) -> None:
    video = bench.queue(num_inference_steps=LONG)
    wait_for(lambda: is_started(bench, video))
    send_command(bench.redis, "tiny", "unload")
    bench.wait_until(video, "completed")
    wait_for(lambda: state(bench.redis, "tiny") == "unloaded")
    send_command(bench.redis, "tiny", "load")
    wait_for(lambda: state(bench.redis, "tiny") == "loaded")
    send_command(bench.redis, "tiny", "unload")
    wait_for(lambda: state(bench.redis, "tiny") == "unloaded")
    bench.wait_until(bench.queue(), "completed")
    wait_for(lambda: state(bench.redis, "tiny") == "loaded")


@pytest.mark.parametrize("running", [{"model_idle_seconds": 0.2}], indirect=True)
@pytest.mark.usefixtures("running")
def test_an_idle_model_is_unloaded_unless_it_is_pinned(bench: Bench, root: Path) -> None:
    wait_for(lambda: state(bench.redis, "tiny") == "unloaded")
    pin_model(bench.redis, "tiny", True)
    wait_for(lambda: state(bench.redis, "tiny") == "loaded")
    add(root, "other")  # loaded and idle after it was pinned
    wait_for(lambda: state(bench.redis, "other") == "unloaded")
    assert state(bench.redis, "tiny") == "loaded"
    pin_model(bench.redis, "tiny", False)
    wait_for(lambda: state(bench.redis, "tiny") == "unloaded")


def test_a_growing_folder_is_not_complete(root: Path) -> None:
    watch = CheckpointWatch(root, ["tiny"])
    folder = make_tiny_checkpoint(root / "new", tiny_card("new"))
    weights = (folder / "model.safetensors").read_bytes()
    for part in range(1, 4):
        (folder / "model.safetensors").write_bytes(weights[: part * 50])
        assert watch.poll().appeared == []
    (folder / "model.safetensors").write_bytes(weights)
    assert watch.poll().appeared == []
    assert [(path, card.id) for path, card in watch.poll().appeared] == [(folder, "new")]
    assert watch.poll().appeared == []


def test_folders_without_their_parts_or_with_a_known_model_are_left_out(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = CheckpointWatch(root, ["tiny"])
    make_tiny_checkpoint(root / "double", tiny_card("tiny"))
    (make_tiny_checkpoint(root / "partial", tiny_card("partial")) / "config.json").unlink()
    (make_tiny_checkpoint(root / "spoiled", tiny_card("spoiled")) / "card.json").write_text("{")
    for _ in range(3):
        assert watch.poll().appeared == []
    messages = "\n".join(caplog.messages)
    assert len(caplog.messages) == 3
    assert all(part in messages for part in ("another folder of the model 'tiny'", "lacks config.json", "spoiled"))


def test_a_folder_of_checkpoints_that_is_away_withdraws_nothing(root: Path, tmp_path: Path) -> None:
    watch = CheckpointWatch(root, ["tiny"])
    root.rename(tmp_path / "elsewhere")
    assert watch.poll().vanished == []
    (tmp_path / "elsewhere").rename(root)
    shutil.rmtree(root / "tiny")
    assert watch.poll().vanished == ["tiny"]
