"""The recorder of our own golden files agrees with the published ones, and the files are what it writes."""

from pathlib import Path

import pytest
import torch

from tests.golden.loading import read_golden, relative_error
from tests.golden.record import FOLDER, MODELS, SAMPLERS, forward, sample


@pytest.mark.parametrize("name", ["latte", "framedit_g"])
def test_the_plain_computation_gives_the_published_outputs(name: str) -> None:
    settings, tensors = read_golden(FOLDER / f"{name}.safetensors")
    out = forward(settings, _state(tensors), tensors["in.x"], tensors["in.t"], tensors["in.y"])
    assert relative_error(out, tensors["out"].double()) < 1e-5  # recorded from a float32 model


@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_is_what_the_recorder_writes(name: str) -> None:
    settings, tensors = read_golden(FOLDER / f"{name}.safetensors")
    assert settings == MODELS[name]
    out = forward(settings, _state(tensors), tensors["in.x"], tensors["in.t"], tensors["in.y"])
    assert relative_error(out, tensors["out"].double()) < 1e-6


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_file_is_what_the_recorder_writes(name: str) -> None:
    settings, tensors = read_golden(FOLDER / f"{name}.safetensors")
    assert settings == SAMPLERS[name]
    model_settings, model_tensors = read_golden(FOLDER / Path(settings["model"]))
    timesteps, out = sample(
        settings, model_settings, _state(model_tensors), tensors["z"], tensors["noises"], tensors["label"]
    )
    assert timesteps.tolist() == tensors["timesteps"].tolist()
    assert relative_error(out, tensors["out"].double()) < 1e-6


def _state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}
