import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.conversion.weights import read_training_output

ONE, TWO = torch.tensor([1.0]), torch.tensor([2.0])
ENTRIES = ("ema", "model")


class RunsCode:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_takes_the_first_entry_and_drops_wrappers(tmp_path: Path, prefix: str) -> None:
    torch.save({"model": {f"{prefix}a.module.w": ONE}, "ema": {f"{prefix}a.module.w": TWO}}, tmp_path / "x.pt")
    assert read_training_output(tmp_path / "x.pt", ENTRIES).state == {"a.module.w": TWO}
    assert read_training_output(tmp_path / "x.pt", ("model", "ema")).state == {"a.module.w": ONE}


def test_takes_model_without_ema_and_bare_state_dicts(tmp_path: Path) -> None:
    torch.save(
        {"model": {"w": ONE}, "opt": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}}, tmp_path / "x.pt"
    )
    assert read_training_output(tmp_path / "x.pt", ENTRIES).state == {"w": ONE}
    torch.save({"w": ONE}, tmp_path / "x.pt")
    assert read_training_output(tmp_path / "x.pt", ENTRIES).state == {"w": ONE}
    save_file({"module.w": ONE}, tmp_path / "x.safetensors")
    assert read_training_output(tmp_path / "x.safetensors", ENTRIES).state == {"w": ONE}


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
    assert read_training_output(tmp_path / "x.pt", ENTRIES).state == {"w": ONE}


@pytest.mark.parametrize("zipped", [True, False])
def test_refuses_a_pickle_with_code_and_does_not_run_it(tmp_path: Path, zipped: bool) -> None:
    file, made = tmp_path / "x.pt", tmp_path / "made"
    torch.save({"ema": {"w": ONE}, "more": RunsCode(made)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x\.pt is refused: it asks for posix\.mkdir"):
        read_training_output(file, ENTRIES)
    assert not made.exists()


@pytest.mark.parametrize("content", [{}, {"ema": {}, "model": {}}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds no weights"):
        read_training_output(tmp_path / "x.pt", ENTRIES)


def test_refuses_a_file_with_other_entries(tmp_path: Path) -> None:
    torch.save({"weights": {"w": ONE}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="more than tensors: weights"):
        read_training_output(tmp_path / "other.pt", ENTRIES)
