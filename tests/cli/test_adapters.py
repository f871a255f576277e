"""Adapters as options of commands, and as folders that `framedit inspect` describes."""

import json
from pathlib import Path

import pytest

from cli.adapters import adapters_field
from jobs.errors import InvalidRequestError
from tests.forked import framedit
from tests.models.adapters.adapter_folders import make_adapter_folder
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import make_tiny_checkpoint, tiny_config


def test_an_option_is_a_name_and_a_scale() -> None:
    assert adapters_field(None) is None
    assert adapters_field([]) is None
    assert json.loads(adapters_field(["one", "two:-0.5"]) or "") == [{"name": "one"}, {"name": "two", "scale": -0.5}]
    with pytest.raises(InvalidRequestError, match="--adapter is 'one:much', whose scale is no number"):
        adapters_field(["one:much"])


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    make_adapter_folder(tmp_path / "adapters" / "one", tiny_config(), card={"model": "tiny", "scale": 0.5})
    return {"FRAMEDIT_CHECKPOINTS": str(tmp_path / "checkpoints"), "FRAMEDIT_ADAPTERS": str(tmp_path / "adapters")}


def test_generate_applies_adapters(folders: dict[str, str], tmp_path: Path) -> None:
    arguments = ("generate", "--class", "left", "--seed", "3", "--json")
    frames = {}
    for name, adapter in (("plain", []), ("adapted", ["--adapter", "one:2"])):
        made = framedit(*arguments, *adapter, "-o", tmp_path / f"{name}.mp4", **folders)
        assert made.returncode == 0, made.stderr
        frames[name] = decode_mp4(tmp_path / f"{name}.mp4").frames
    assert json.loads(made.stdout)["adapters"] == [{"name": "one", "scale": 2.0}]
    assert (frames["plain"] != frames["adapted"]).any()


def test_generate_lists_the_adapters_of_the_model(folders: dict[str, str], tmp_path: Path) -> None:
    made = framedit("generate", "--class", "left", "--adapter", "two", "-o", tmp_path / "x.mp4", **folders)
    assert made.returncode == 2
    assert "adapters is 'two'; tiny has the adapters one" in made.stderr


def test_inspect_describes_an_adapter(tmp_path: Path) -> None:
    folder = make_adapter_folder(tmp_path / "one", tiny_config(), rank=2, base_model_name_or_path="some/tiny")
    shown = framedit("inspect", folder)
    assert shown.returncode == 0, shown.stderr
    assert "base model    tiny" in shown.stdout
    values = json.loads(framedit("inspect", folder, "--json").stdout)
    assert (values["rank"], values["alpha / rank"], values["layers"]) == ("2", "2", "5: proj, qkv")
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    broken = framedit("inspect", folder)
    assert broken.returncode == 2
    assert "adapter_model.safetensors" in broken.stderr
