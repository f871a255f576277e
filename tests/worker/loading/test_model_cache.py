"""Folders, cards and checkpoints that do or do not fit together."""

import shutil
from pathlib import Path

import pytest
import torch

from jobs.cards import ModelCard, write_card
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_card
from worker.device import choose_device, choose_dtype, choose_max_batch_rows
from worker.errors import StartupError
from worker.loading.card_check import check_card
from worker.loading.checkpoint_discovery import find_checkpoints
from worker.loading.model_cache import ModelCache, load_models


def test_every_folder_with_a_card_is_found_and_others_are_passed(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, tiny_card(f"model-{name}"))
    (tmp_path / "notes").mkdir()
    found = find_checkpoints(tmp_path)
    assert [(folder.name, card.id) for folder, card in found.items()] == [("a", "model-a"), ("b", "model-b")]
    assert list(find_checkpoints(tmp_path / "a")) == [tmp_path / "a"]


def test_of_two_folders_with_the_same_model_the_first_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, tiny_card())
    assert list(find_checkpoints(tmp_path)) == [tmp_path / "a"]
    assert f"{tmp_path / 'a'} and {tmp_path / 'b'} are both the model 'tiny'" in caplog.text


def test_a_card_that_is_none_is_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text("{}")
    with pytest.raises(StartupError, match=r"a/card\.json is not a model card.*b/card\.json is not a model card"):
        find_checkpoints(tmp_path)
    write_card(tmp_path / "b", tiny_card())
    assert list(find_checkpoints(tmp_path)) == [tmp_path / "b"]
    assert "a/card.json is not a model card" in caplog.text


def test_a_conversion_that_is_going_on_is_passed(tmp_path: Path) -> None:
    for name in (".tiny.x1", "tiny"):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, tiny_card())
    assert list(find_checkpoints(tmp_path)) == [tmp_path / "tiny"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b"]}, "2 class names, not 3"),
        ({"max_frames": 5}, "5 trained frames, more than 4"),
        ({"width": 32}, "size 32x16, not 16x16"),
        ({"samplers": ["ddim", "magic"]}, "samplers magic, which are not among"),
        ({"conditioning": "text", "class_names": None}, "conditioning 'text', not class; None class names, not 3"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_every_reason(
    models: ModelCache, changes: dict[str, object], message: str
) -> None:
    card = ModelCard.model_validate(tiny_card().model_dump() | changes)
    with pytest.raises(StartupError, match=message):
        check_card(card, models["tiny"].checkpoint, Path("folder"))


def test_a_checkpoint_without_weights_is_refused_by_name(tmp_path: Path, checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    with pytest.raises(StartupError, match=r"tiny cannot be loaded: .*model\.safetensors"):
        load_models(tmp_path, torch.device("cpu"), torch.float32)


def test_a_checkpoint_whose_weights_are_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    weights = make_tiny_checkpoint(tmp_path / "tiny") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StartupError, match="tiny cannot be loaded"):
        load_models(tmp_path, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("spoiled", ["model.safetensors", "config.json", "vae/config.json"])
def test_a_broken_checkpoint_is_left_out_by_name(
    tmp_path: Path, checkpoints: Path, caplog: pytest.LogCaptureFixture, spoiled: str
) -> None:
    for name in ("broken", "sound"):
        shutil.copytree(checkpoints / "tiny", tmp_path / name)
        write_card(tmp_path / name, tiny_card(name))
    (tmp_path / "broken" / spoiled).write_text("[1]")
    assert list(load_models(tmp_path, torch.device("cpu"), torch.float32).cards) == ["sound"]
    assert f"left out: the checkpoint in {tmp_path / 'broken'} cannot be loaded: " in caplog.text


def test_auto_is_the_accelerator_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_max_batch_rows(0, torch.device("cuda")) > choose_max_batch_rows(0, torch.device("cpu")) > 1
    assert choose_max_batch_rows(3, torch.device("cuda")) == 3
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("name", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(StartupError, match=f"device '{name}' cannot be used: .*; try FRAMEDIT_DEVICE=cpu or auto"):
        choose_device(name)
