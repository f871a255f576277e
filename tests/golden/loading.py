"""Golden files -> models: tensors recorded from the published implementation, and the settings it was built with."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from models.conversion.state_dict import convert_state_dict
from models.registry import PublishedModel, from_class_settings, from_text_settings
from models.transformer import Transformer


def read_golden(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings in the file's metadata, and its tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def published_model_of(settings: dict[str, Any]) -> PublishedModel:
    """The model that the settings of a golden file describe."""
    if settings["family"].endswith("T2V"):
        return from_text_settings(settings)
    return from_class_settings(settings)


def load_golden_model(path: Path) -> Transformer:
    """The model in a golden file, ready to run in float32 on the CPU."""
    settings, tensors = read_golden(path)
    published = published_model_of(settings)
    state = {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}
    with torch.device("meta"):
        model = Transformer(published.config)
    model.load_state_dict(convert_state_dict(state, published), assign=True)
    return model.eval()


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """`|a - b| / |b|`."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    return float((actual - expected).norm() / expected.norm())
