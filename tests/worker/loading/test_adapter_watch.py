"""Adapter folders that appear, change, vanish and are broken while a worker runs."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.models.adapters.adapter_folders import make_adapter_folder
from tests.models.transformers import make_config
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card, tiny_config
from worker.loading.adapter_watch import AdapterWatch

CONFIG = tiny_config()
MAX_BYTES = 1 << 20
MODELS = ["tiny"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "one")
    make_tiny_checkpoint(root / "two", tiny_card("other"))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def watch(root: Path, checkpoints: Path) -> AdapterWatch:
    return AdapterWatch(root, checkpoints, MAX_BYTES)


def names(watch: AdapterWatch) -> list[str]:
    return [card.name for card in watch.served.of("tiny")]


def poll_twice(watch: AdapterWatch, models: list[str] = MODELS) -> None:
    watch.poll(models)
    watch.poll(models)


def test_without_a_folder_there_are_no_adapters(watch: AdapterWatch) -> None:
    poll_twice(watch)
    assert (names(watch), watch.served.refused) == ([], {})


def test_adapters_are_there_at_the_start(watch: AdapterWatch, root: Path) -> None:
    make_adapter_folder(root / "one", CONFIG)
    watch.poll(MODELS, is_start=True)
    assert names(watch) == ["one"]


def test_a_folder_appears_once_it_no_longer_changes(watch: AdapterWatch, root: Path) -> None:
    watch.poll(MODELS)
    folder = make_adapter_folder(root / "one", CONFIG)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[:100])
    watch.poll(MODELS)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    watch.poll(MODELS)
    assert (names(watch), watch.served.refused) == ([], {}), "it has changed since the last poll"
    watch.poll(MODELS)
    assert names(watch) == ["one"]


def test_a_folder_that_vanishes_is_withdrawn(watch: AdapterWatch, root: Path) -> None:
    for name in ("one", "two", ".copying"):
        make_adapter_folder(root / name, CONFIG)
    poll_twice(watch)
    assert names(watch) == ["one", "two"]
    shutil.rmtree(root / "one")
    watch.poll(MODELS)
    assert names(watch) == ["two"]
    shutil.rmtree(root)
    watch.poll(MODELS)
    assert names(watch) == []


def test_a_card_says_what_an_adapter_is(watch: AdapterWatch, root: Path) -> None:
    card = {"model": "tiny", "description": "A shape.", "scale": 0.7, "trigger_words": ["sparkle"]}
    make_adapter_folder(root / "one", CONFIG, card=card)
    poll_twice(watch)
    assert watch.served.of("tiny")[0].model_dump() == card | {"name": "one"}


def test_without_a_card_the_model_is_that_of_peft_or_the_only_one(watch: AdapterWatch, root: Path) -> None:
    make_adapter_folder(root / "of-peft", CONFIG, base_model_name_or_path="checkpoints/other")
    make_adapter_folder(root / "of-nobody", CONFIG)
    poll_twice(watch, ["tiny", "other"])
    assert [card.name for card in watch.served.of("other")] == ["of-peft"]
    assert "does not say its model" in watch.served.refused["of-nobody"]
    watch.poll(["tiny"])  # read again, since the models are others
    assert names(watch) == ["of-nobody", "of-peft"]


def test_a_changed_adapter_is_read_again(watch: AdapterWatch, root: Path) -> None:
    folder = make_adapter_folder(root / "one", CONFIG, card={"model": "tiny", "scale": 1.0})
    poll_twice(watch)
    (folder / "card.json").write_text(json.dumps({"model": "tiny", "scale": 2.0}))
    poll_twice(watch)
    assert watch.served.of("tiny")[0].scale == 2.0
    os.truncate(folder / "adapter_model.safetensors", 50)
    poll_twice(watch)
    assert names(watch) == []
    assert "one/adapter_model.safetensors" in watch.served.refused["one"]


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({"model": "gone"}, "its model 'gone' is not served here: the models are tiny"),
        ({"model": "tiny", "scale": 1e9}, "scale: Input should be less than or equal to 10"),
        ({"model": "tiny", "scale": "much"}, "scale"),
        ({"model": "tiny", "sclae": 1}, "sclae: Extra inputs are not permitted"),
        ({"model": 7}, "model"),
    ],
)
def test_a_bad_card_is_refused_by_name(
    card: dict[str, object], reason: str, watch: AdapterWatch, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_adapter_folder(root / "bad", CONFIG, card=card)
    make_adapter_folder(root / "good", CONFIG)
    poll_twice(watch)
    assert names(watch) == ["good"]
    assert reason in watch.served.refused["bad"]
    assert "adapter refused: bad" in caplog.text
    assert str(root) not in watch.served.refused["bad"], "clients see no paths of the server"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 60_000, b'"' + b"x" * (1 << 17) + b'"'])
def test_a_card_that_is_none_is_refused(content: bytes, watch: AdapterWatch, root: Path) -> None:
    (make_adapter_folder(root / "bad", CONFIG) / "card.json").write_bytes(content)
    poll_twice(watch)
    assert "bad/card.json" in watch.served.refused["bad"]


def test_broken_adapters_leave_the_others_alone(watch: AdapterWatch, root: Path, tmp_path: Path) -> None:
    make_adapter_folder(root / "good", CONFIG)
    make_adapter_folder(root / "wide", make_config(width=32))
    make_adapter_folder(root / "bad name!", CONFIG)
    (root / "empty").mkdir()
    outside = make_adapter_folder(tmp_path / "outside", CONFIG)
    (root / "linked").symlink_to(outside)
    poll_twice(watch)
    assert names(watch) == ["good"]
    assert set(watch.served.refused) == {"wide", "bad name!", "empty", "linked"}
    assert "mis-shaped" in watch.served.refused["wide"] or "unknown" in watch.served.refused["wide"]


def test_a_refused_adapter_is_read_only_once(watch: AdapterWatch, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "empty").mkdir(parents=True)
    for _ in range(4):
        watch.poll(MODELS)
    assert caplog.text.count("adapter refused: empty") == 1


def test_many_new_adapters_are_read_in_several_polls(root: Path, checkpoints: Path) -> None:
    """Each reading takes a second by this clock: the dispatcher must go on in between."""
    now = iter(range(100))
    watch = AdapterWatch(root, checkpoints, MAX_BYTES, clock=lambda: float(next(now)))
    for number in range(5):
        make_adapter_folder(root / f"{number}", CONFIG)
    poll_twice(watch)
    assert 0 < len(names(watch)) < 5
    for _ in range(5):
        watch.poll(MODELS)
    assert len(names(watch)) == 5
