import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint.weights import read_diffusers_weights, read_state_dict, read_weights

ONE, TWO = torch.tensor([1.0]), torch.tensor([2.0])


class RunsCode:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_takes_ema_before_model_and_drops_wrappers(tmp_path: Path, prefix: str) -> None:
    torch.save({"model": {f"{prefix}a.module.w": ONE}, "ema": {f"{prefix}a.module.w": TWO}}, tmp_path / "x.pt")
    assert read_state_dict(tmp_path / "x.pt") == {"a.module.w": TWO}


def test_takes_model_without_ema_and_bare_state_dicts(tmp_path: Path) -> None:
    torch.save(
        {"model": {"w": ONE}, "opt": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}}, tmp_path / "x.pt"
    )
    assert read_state_dict(tmp_path / "x.pt") == {"w": ONE}
    torch.save({"w": ONE}, tmp_path / "x.pt")
    assert read_state_dict(tmp_path / "x.pt") == {"w": ONE}
    save_file({"module.w": ONE}, tmp_path / "x.safetensors")
    assert read_state_dict(tmp_path / "x.safetensors") == {"w": ONE}


def test_settings_objects_in_the_file_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DictConfig:  # stands for omegaconf's, which training scripts save; it need not be installed
        def __setstate__(self, state: Any) -> None:
            raise AssertionError("the settings' own code must not run")

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module: Any = ModuleType("omegaconf.dictconfig")
    module.DictConfig = DictConfig
    config = DictConfig()
    config.__dict__["_content"] = {"depth": 28}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
        patch.setitem(sys.modules, "omegaconf.dictconfig", module)
        torch.save({"ema": {"w": ONE}, "args": argparse.Namespace(lr=0.1), "config": config}, tmp_path / "x.pt")
    assert read_state_dict(tmp_path / "x.pt") == {"w": ONE}


@pytest.mark.parametrize("zipped", [True, False])
def test_refuses_a_pickle_with_code_and_does_not_run_it(tmp_path: Path, zipped: bool) -> None:
    file, made = tmp_path / "x.pt", tmp_path / "made"
    torch.save({"ema": {"w": ONE}, "more": RunsCode(made)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x\.pt is refused: it asks for posix\.mkdir"):
        read_state_dict(file)
    assert not made.exists()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_refuses_files_of_another_kind(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.(pt|safetensors) is not"):
        read_weights(tmp_path / name)


def test_refuses_what_holds_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_weights(tmp_path / "none.pt")
    torch.save([ONE], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="a dict of tensors is expected"):
        read_weights(tmp_path / "list.pt")
    torch.save({"weights": {"w": ONE}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="more than tensors: weights"):
        read_state_dict(tmp_path / "other.pt")


def test_reads_diffusers_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no weights"):
        read_diffusers_weights(tmp_path)
    torch.save({"w": ONE}, tmp_path / "diffusion_pytorch_model.bin")
    assert read_diffusers_weights(tmp_path) == {"w": ONE}
    save_file({"w": TWO}, tmp_path / "diffusion_pytorch_model.safetensors")
    assert read_diffusers_weights(tmp_path) == {"w": TWO}
    index = '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}}'
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(index)
    save_file({"a": ONE}, tmp_path / "1.safetensors")
    with pytest.raises(ValueError, match=r"lacks 2\.safetensors"):
        read_diffusers_weights(tmp_path)
    save_file({"b": TWO, "c": ONE}, tmp_path / "2.safetensors")
    assert read_diffusers_weights(tmp_path) == {"a": ONE, "b": TWO, "c": ONE}
