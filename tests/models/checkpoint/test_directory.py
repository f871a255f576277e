import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoint.directory import CheckpointConfig, find_vae, new_folder, read_config, write_config
from models.config import Conditioning
from models.sampling.schedule import NoiseSchedule
from tests.models.transformers import make_local_config

TRANSFORMER = make_local_config(Conditioning.TEXT)
CONFIG = CheckpointConfig(TRANSFORMER, NoiseSchedule(500, 1e-3, 1e-2), 0.5, 120, cut_negative_to_prompt=True)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(
            CONFIG,
            transformer=replace(TRANSFORMER, conditioning=Conditioning.CLASS, text_width=None, num_classes=3),
            max_tokens=None,
            cut_negative_to_prompt=False,
        ),
    ],
)
def test_config_comes_back_as_written(tmp_path: Path, config: CheckpointConfig) -> None:
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_text_settings_belong_to_text_models() -> None:
    with pytest.raises(ValueError, match="max_tokens is None with conditioning 'text'"):
        replace(CONFIG, max_tokens=None)


def test_says_that_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        read_config(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read_config(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(format=2), "its format is 2, but this version of FrameDiT reads 1"),
        (lambda values: values.pop("format"), "its format is None"),
        (lambda values: values.update(sampler={}), "unknown section sampler"),
        (lambda values: values.pop("vae"), "missing section vae"),
        (lambda values: values["transformer"].update(experts=8), "unknown transformer setting experts"),
        (lambda values: values["transformer"].pop("depth"), "depth"),
        (lambda values: values["schedule"].update(beta_schedule="cosine"), "section schedule holds .*beta_schedule"),
        (lambda values: values["schedule"].update(beta_start=2), "beta_start 2"),
        (lambda values: values["schedule"].update(beta_start="small"), "cannot read"),
        (lambda values: values.update(vae={}), "section vae holds nothing; it must hold scaling_factor"),
        (lambda values: values["text"].update(language="en"), "section text holds .*language"),
    ],
)
def test_names_what_is_wrong_in_the_config(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    values = CONFIG.to_dict()
    change(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as raised:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_refuses_a_config_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="cannot read"):
        read_config(tmp_path)


def test_temporal_decoder_is_preferred(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    assert find_vae(tmp_path) == tmp_path / "vae"
    (tmp_path / "vae_temporal_decoder").mkdir()
    assert find_vae(tmp_path) == tmp_path / "vae_temporal_decoder"


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "checkpoint"
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert [file.name for file in target.iterdir()] == ["a"]
    assert target.stat().st_mode & 0o777 == tmp_path.joinpath("deep").stat().st_mode & 0o777
    assert [file.name for file in target.parent.iterdir()] == ["checkpoint"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("a")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"), new_folder(tmp_path / "checkpoint") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    target.mkdir()
    with new_folder(target):
        pass
    (target / "precious").write_text("a")
    with pytest.raises(FileExistsError, match="already exists"), new_folder(target):
        pass
    assert (target / "precious").read_text() == "a"


def test_what_is_written_can_be_read_by_a_server_of_another_user(tmp_path: Path) -> None:
    with new_folder(tmp_path / "checkpoint") as folder:
        (folder / "vae").mkdir(mode=0o700)
        weights = folder / "vae" / "weights"
        weights.write_text("")
        weights.chmod(0o600)
    made = tmp_path / "checkpoint"
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (made, made / "vae", made / "vae" / "weights"))
