"""Whether weights fit a model: every missing, unexpected and mis-shaped key, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn


def check_shapes(source: str, shapes: Mapping[str, Sequence[int]], model: nn.Module) -> None:
    """Raise ValueError, naming each wrong key, unless `shapes` are just those of the state dict of `model`."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    mis_shaped = [
        f"{name} is {tuple(shapes[name])} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    _raise_for(source, expected.keys() - shapes.keys(), shapes.keys() - expected.keys(), mis_shaped)


def check_loading_info(folder: Path, info: Mapping[str, Any]) -> None:
    """The same of what diffusers and transformers tell of a model loaded from `folder`, where they only warn."""
    mismatched = {
        name: f"{name} is {tuple(got)} instead of {tuple(want)}" for name, got, want in info["mismatched_keys"]
    }
    missing = set(info["missing_keys"]) - set(mismatched)
    _raise_for(str(folder), missing, info["unexpected_keys"], mismatched.values())


def _raise_for(source: str, missing: Iterable[str], unexpected: Iterable[str], mis_shaped: Iterable[str]) -> None:
    kinds = {"missing": missing, "unexpected": unexpected, "mis-shaped": mis_shaped}
    problems = [f"{kind}: {problem}" for kind, found in kinds.items() for problem in sorted(found)]
    if problems:
        raise ValueError(f"the weights in {source} do not fit its config.json:\n  " + "\n  ".join(problems))
