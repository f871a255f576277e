"""Adapters with random numbers, in memory and as folders of peft's layout."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.adapters.adapter import Adapter, LowRankUpdate, ScaledAdapter
from models.adapters.targets import Target, find_targets
from models.config import TransformerConfig

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "qkv", "proj")


def random_lora(targets: dict[str, Target], rank: int = 2, seed: int = 0, std: float = 0.3) -> dict[str, Tensor]:
    """lora_A and lora_B of every target, named as peft names them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, target in targets.items():
        down = torch.randn(rank, target.num_inputs, generator=generator) * std
        up = torch.randn(target.num_outputs, rank, generator=generator) * std
        tensors |= {f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up}
    return tensors


def attention_targets(config: TransformerConfig) -> dict[str, Target]:
    """The layers that FrameDiT's own training adapts: the attentions' projections, of one of the two sets of names."""
    targets = find_targets(config)
    one_of_each = {(target.name, target.first_output): name for name, target in targets.items()}
    return {name: targets[name] for name in one_of_each.values() if name.endswith(ATTENTION)}


def write_adapter(
    folder: Path, tensors: dict[str, Tensor], card: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Write the folder, with `lora_alpha` 4 unless `settings` of adapter_config.json have another."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4} | settings))
    if card is not None:
        (folder / "card.json").write_text(json.dumps(card))
    return folder


def make_adapter_folder(
    folder: Path,
    config: TransformerConfig,
    seed: int = 0,
    rank: int = 2,
    only: Iterable[str] | None = None,
    **more: Any,
) -> Path:
    """An adapter of the attentions of a model, or of `only` the published layers named."""
    targets = attention_targets(config) if only is None else {name: find_targets(config)[name] for name in only}
    return write_adapter(folder, random_lora(targets, rank, seed), **more)


@cache
def make_adapter(config: TransformerConfig, seed: int = 0, std: float = 0.3) -> Adapter:
    """An adapter of the attentions of a model, of rank `seed` + 1."""
    targets = attention_targets(config)
    lora = random_lora(targets, rank=seed + 1, seed=seed, std=std)
    updates: dict[str, tuple[LowRankUpdate, ...]] = {}
    for module, target in targets.items():
        down, up = (lora[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        updates[target.name] = (*updates.get(target.name, ()), LowRankUpdate(target.first_output, down, up))
    return Adapter(config, updates, f"random {seed}")


def make_scaled(config: TransformerConfig, *seeds_and_scales: tuple[int, float]) -> tuple[ScaledAdapter, ...]:
    """The adapters of these seeds, each with its scale."""
    return tuple(ScaledAdapter(make_adapter(config, seed), scale) for seed, scale in seeds_and_scales)
