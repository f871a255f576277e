import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoint.directory import CheckpointConfig, new_folder, read_config, write_config
from models.config import Conditioning
from models.sampling.schedule import BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType
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
        (lambda values: values["schedule"].update(beta_schedule="cosine"), "'cosine' is not a valid BetaSchedule"),
        (lambda values: values["schedule"].update(beta_start=2), "beta_start 2"),
        (lambda values: values["schedule"].update(beta_start="small"), "cannot read"),
        (lambda values: values.update(vae={}), "section vae holds nothing; it must hold scaling_factor"),
        (lambda values: values["text"].update(language="en"), "section text holds .*language"),
    ],
)
def test_names_faults_of_the_config(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
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


def test_every_setting_of_a_schedule_is_kept(tmp_path: Path) -> None:
    schedule = NoiseSchedule(
        beta_schedule=BetaSchedule.SCALED_LINEAR,
        rescale_betas_zero_snr=True,
        prediction_type=PredictionType.VELOCITY,
        timestep_spacing=Spacing.TRAILING,
        steps_offset=1,
        set_alpha_to_one=False,
        variance_type=VarianceType.SMALL,
    )
    config = replace(CONFIG, schedule=schedule, floor_pixels=True, mask_feature=False, provenance={"weights": "ema"})
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_a_config_of_the_first_version_is_read(tmp_path: Path) -> None:
    values = CONFIG.to_dict()
    del values["transformer"]["attention_mode"], values["transformer"]["clean_known_frames"]
    del values["vae"]["floor_pixels"], values["text"]["mask_feature"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path) == CONFIG


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


def test_checkpoints_are_readable_by_other_users(tmp_path: Path) -> None:
    with new_folder(tmp_path / "checkpoint") as folder:
        (folder / "vae").mkdir(mode=0o700)
        weights = folder / "vae" / "weights"
        weights.write_text("")
        weights.chmod(0o600)
    made = tmp_path / "checkpoint"
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (made, made / "vae", made / "vae" / "weights"))
