"""LoRA files (peft names), read, and merged into the weights that they were trained on.

A LoRA adds `alpha / rank * B A` to the weight of a linear layer or convolution (Hu et al., arXiv 2106.09685, 4.1).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from models.checkpoint.weights import read_weights
from models.conversion.conversion import Report

# peft saves `base_model.model.<module>.lora_A.weight`; a state dict of the live model has the adapter's name,
# `default`, before `weight`; diffusers writes `transformer.<module>...`.
_KEY = re.compile(r"^(?:base_model\.model\.|transformer\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")
_ALPHA_KEY = re.compile(r"^(?:base_model\.model\.|transformer\.)?(?P<module>.+)\.alpha$")
# A training output with `use_lora` holds the whole model as peft wraps it, and the published settings' alpha.
_WRAPPED = "base_model.model."
_BASE_LAYER = ".base_layer."
PUBLISHED_ALPHA = 32.0
_UNSUPPORTED = ("use_dora", "fan_in_fan_out", "lora_bias")


@dataclass(frozen=True)
class Scaling:
    """The settings of an adapter_config.json that say how much of the LoRA is added."""

    alpha: float | None = None
    alpha_pattern: dict[str, float] | None = None
    rank_stabilized: bool = False

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Scaling:
        """Raises ValueError for a kind of LoRA that is not merged here."""
        if used := [name for name in _UNSUPPORTED if values.get(name)]:
            raise ValueError(f"the LoRA was trained with {', '.join(used)}, which cannot be merged here")
        return Scaling(values.get("lora_alpha"), values.get("alpha_pattern"), bool(values.get("use_rslora")))

    def factor(self, module: str, rank: int, alpha: float | None) -> float:
        """The factor of `B A` of `module`; `alpha` is the file's own for it, if it holds one."""
        for pattern, value in (self.alpha_pattern or {}).items():
            if alpha is None and re.search(rf"(^|\.)({pattern})$", module):  # peft's own rule
                alpha = value
        alpha = self.alpha if alpha is None else alpha
        if alpha is None:
            raise ValueError(
                f"no alpha is known for the LoRA of {module}: put peft's adapter_config.json beside the file, "
                "or give the alpha that it was trained with"
            )
        return alpha / (rank**0.5 if self.rank_stabilized else rank)


@dataclass(frozen=True)
class LowRank:
    """The update of one module's weight: `factor up down`.

    Attributes:
        down: (rank, in, ...), lora_A.
        up: (out, rank, ...), lora_B.
    """

    down: Tensor
    up: Tensor
    factor: float


def merge_lora(state: dict[str, Tensor], path: Path, alpha: float | None = None) -> list[str]:
    """Add the LoRA in `path` to the weights in `state` (published names), in place.

    Args:
        state: the weights of the transformer; those that the LoRA changes are replaced.
        path: a peft folder, or its .safetensors or .pt file, with adapter_config.json beside it or its settings inside.
        alpha: the alpha that it was trained with, where neither says.

    Returns:
        The names of the changed weights.

    Raises:
        ValueError: for a key that is not of a LoRA, a module that `state` lacks, or shapes that do not fit, by name.
    """
    file = _adapter_file(path)
    scaling = _read_scaling(file)
    if scaling.alpha is None:
        scaling = replace(scaling, alpha=alpha)
    return _merge(state, parse_lora(read_weights(file), scaling), str(file))


def merge_trained_lora(state: dict[str, Tensor], alpha: float | None, report: Report) -> list[str]:
    """Merge the LoRA within the state dict of a training output with `use_lora`, in place.

    Args:
        state: of the live model, with peft's prefix on every key; any other state dict is left as it is.
        alpha: of training; by default the published training's.
        report: is called with the alpha.

    Returns:
        The names of the changed weights.

    Raises:
        ValueError: for a LoRA that does not fit its weight, by name.
    """
    wrapped = {key: tensor for key, tensor in state.items() if key.startswith(_WRAPPED)}
    if not wrapped:
        return []
    for key in wrapped:
        del state[key]
    lora = {key: tensor for key, tensor in wrapped.items() if _KEY.match(key)}
    for key in wrapped.keys() - lora.keys():
        state[key.removeprefix(_WRAPPED).replace(_BASE_LAYER, ".")] = wrapped[key]
    if not lora:
        return []
    scaling = Scaling(PUBLISHED_ALPHA if alpha is None else alpha)
    report(f"merging the LoRA of the training output, alpha {scaling.alpha:g}")
    return _merge(state, parse_lora(lora, scaling), "of the training output")


def parse_lora(tensors: dict[str, Tensor], scaling: Scaling) -> dict[str, LowRank]:
    """The updates of the LoRA in `tensors` (peft names), by module.

    Raises ValueError, by name, for a key that is not of a LoRA, for half of a pair, and for an alpha that is not known.
    """
    sides, alphas = _read_sides(tensors)
    return {
        module: LowRank(down, sides["B"][module], scaling.factor(module, down.shape[0], alphas.get(module)))
        for module, down in sides["A"].items()
    }


def _merge(state: dict[str, Tensor], lora: dict[str, LowRank], source: str) -> list[str]:
    if unknown := sorted(module for module in lora if f"{module}.weight" not in state):
        raise ValueError(f"the LoRA {source} changes modules that the transformer does not have: {', '.join(unknown)}")
    for module, change in lora.items():
        key = f"{module}.weight"
        state[key] = _merged(key, state[key], change.down, change.up, change.factor)
    return sorted(f"{module}.weight" for module in lora)


def _merged(key: str, weight: Tensor, down: Tensor, up: Tensor, factor: float) -> Tensor:
    """`weight + factor up down` in float32: (out, in, ...) + factor (out, rank) (rank, in, ...)."""
    # A convolution's LoRA is a convolution into the rank's channels, then one by one.
    product_shape = (up.shape[0], *down.shape[1:])
    fits = up.shape[1] == down.shape[0] and up[0, 0].numel() == 1 and product_shape == tuple(weight.shape)
    if not fits:
        raise ValueError(
            f"the LoRA of {key} has lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)}, "
            f"which do not fit a weight of shape {tuple(weight.shape)}"
        )
    product = up.float().flatten(1) @ down.float().flatten(1)
    return weight.float() + factor * product.reshape(weight.shape)


def _read_sides(tensors: dict[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
    """lora_A and lora_B, as "A" and "B", by module; and the alphas that the file holds."""
    sides: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    alphas, unknown = {}, []
    for key, tensor in tensors.items():
        if match := _KEY.match(key):
            sides[match["side"]][match["module"]] = tensor
        elif match := _ALPHA_KEY.match(key):
            alphas[match["module"]] = float(tensor)
        else:
            unknown.append(key)
    if unknown or not tensors:
        raise ValueError(f"these are no LoRA keys of peft: {', '.join(sorted(unknown)) or '(the file is empty)'}")
    if halves := sorted(set(sides["A"]) ^ set(sides["B"])):
        raise ValueError(f"the LoRA has only one of lora_A and lora_B for {', '.join(halves)}")
    return sides, alphas


def _adapter_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    names = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors")
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ValueError(f"{path} holds no LoRA: none of {', '.join(names)} is in it")


def _read_scaling(file: Path) -> Scaling:
    """The settings beside `file`, or else in its safetensors metadata; none where there are none."""
    beside = file.parent / "adapter_config.json"
    if beside.is_file():
        return Scaling.from_dict(json.loads(beside.read_text()))
    if file.suffix != ".safetensors":
        return Scaling()
    with safe_open(file, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
    values: dict[str, Any] = dict(metadata)
    if "lora_adapter_metadata" in metadata:  # diffusers: one JSON object, its keys led by the component's name
        adapter = json.loads(metadata["lora_adapter_metadata"])
        values = {key.removeprefix("transformer."): value for key, value in adapter.items()}
    return Scaling.from_dict({key: _number(value) for key, value in values.items()})


def _number(value: Any) -> Any:
    """Safetensors metadata holds strings only."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value
