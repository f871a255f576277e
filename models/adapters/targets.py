"""The linear layers that an adapter can update, by their published names, from the key maps of the conversion.

The update of a layer's weight is exact on our layer: ours is the published one, or several with the same input stacked
into one. The mixing matrix U of matrix attention is stored after its softmax, and its W is a parameter and not a linear
layer, so a LoRA updates neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from models.checkpoint.load import empty_transformer
from models.config import TransformerConfig
from models.conversion.state_dict import Row, key_rows
from models.registry import PublishedModel

_MATRIX_PARTS = ("linear_q", "linear_k", "linear_v", "proj_v")


@dataclass(frozen=True)
class Target:
    """The place of a published layer: `num_outputs` outputs of our linear layer `name`, from `first_output` on."""

    name: str
    first_output: int
    num_outputs: int
    num_inputs: int


def find_targets(config: TransformerConfig) -> dict[str, Target]:
    """The targets of a model by the names of the published layers.

    The published code has two sets of names for ordinary attention. A config does not say which one its checkpoint had,
    so both are known.
    """
    modules = empty_transformer(config).named_modules()
    linears = {name: module for name, module in modules if isinstance(module, nn.Linear)}
    targets: dict[str, Target] = {}
    for hybrid_names in (True, False):
        for row in key_rows(PublishedModel(config, hybrid_names=hybrid_names)):
            targets |= _targets_of(row, linears, config)
    return targets


def explain_unknown(module: str) -> str:
    """Why an adapter cannot update a module that is not a target."""
    if module.rpartition(".")[2] in _MATRIX_PARTS:
        return f"{module} (matrix attention is folded into its weights, so that a LoRA cannot be added to it)"
    return module


def _targets_of(row: Row, linears: Mapping[str, nn.Linear], config: TransformerConfig) -> dict[str, Target]:
    name, _, kind = row.ours.rpartition(".")
    if kind != "weight" or name not in linears:
        return {}
    layer, targets, first = linears[name], {}, 0
    for source, size in zip(row.sources, _sizes(name, len(row.sources), layer, config), strict=True):
        targets[source.removesuffix(".weight")] = Target(name, first, size, layer.in_features)
        first += size
    return targets


def _sizes(name: str, count: int, layer: nn.Linear, config: TransformerConfig) -> list[int]:
    """The outputs of each published layer that ours is stacked of: equal parts, apart from the last of adaLN-Zero."""
    if name == "modulation.linear" and count > 1:
        return [6 * config.width] * config.depth + [2 * config.width]
    return [layer.out_features // count] * count
