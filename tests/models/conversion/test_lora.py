import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from models.conversion.lora import merge_lora

RANK, ALPHA = 2, 6.0


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


DOWN, UP = random(RANK, 5), random(4, RANK)


def state() -> dict[str, Tensor]:
    return {"blocks.0.to_q.weight": random(4, 5), "blocks.0.to_q.bias": random(4), "proj.weight": random(4, 3, 2, 2)}


def write(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    save_file(tensors, folder / "adapter_model.safetensors")
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder / "adapter_model.safetensors"


def lora_of(module: str, down: Tensor = DOWN, up: Tensor = UP, adapter: str = "") -> dict[str, Tensor]:
    return {f"{module}.lora_A{adapter}.weight": down, f"{module}.lora_B{adapter}.weight": up}


@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.", ""])
@pytest.mark.parametrize("adapter", ["", ".default"])
@torch.no_grad()
def test_a_merged_linear_layer_is_the_layer_and_the_lora_beside_it(tmp_path: Path, prefix: str, adapter: str) -> None:
    merged = state()
    lora = lora_of(f"{prefix}blocks.0.to_q", adapter=adapter)
    changed = merge_lora(merged, write(tmp_path, lora, {"lora_alpha": ALPHA, "r": RANK}))
    assert changed == ["blocks.0.to_q.weight"]
    x = random(7, 5)
    expected = F.linear(x, state()["blocks.0.to_q.weight"]) + ALPHA / RANK * F.linear(F.linear(x, DOWN), UP)
    torch.testing.assert_close(F.linear(x, merged["blocks.0.to_q.weight"]), expected)
    assert torch.equal(merged["blocks.0.to_q.bias"], state()["blocks.0.to_q.bias"])


@torch.no_grad()
def test_a_merged_convolution_is_the_convolution_and_the_lora_beside_it(tmp_path: Path) -> None:
    merged, down, up = state(), random(RANK, 3, 2, 2), random(4, RANK, 1, 1)
    merge_lora(merged, write(tmp_path, lora_of("proj", down, up), {"lora_alpha": ALPHA}))
    x = random(1, 3, 4, 4)
    expected = F.conv2d(x, state()["proj.weight"]) + ALPHA / RANK * F.conv2d(F.conv2d(x, down), up)
    torch.testing.assert_close(F.conv2d(x, merged["proj.weight"]), expected)


def change(folder: Path, config: dict[str, Any] | None, alpha: float | None = None) -> float:
    """The factor of `B A`, measured."""
    merged = state()
    merge_lora(merged, write(folder, lora_of("blocks.0.to_q"), config), alpha)
    difference = merged["blocks.0.to_q.weight"] - state()["blocks.0.to_q.weight"]
    return float((difference / (UP @ DOWN)).mean())


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"lora_alpha": 8}, 4.0),
        ({"lora_alpha": 8, "use_rslora": True}, 8 / 2**0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}, 1.0),
        ({"lora_alpha": 8, "alpha_pattern": {"to_k": 2}}, 4.0),
    ],
)
def test_scale_comes_from_the_adapter_config(tmp_path: Path, config: dict[str, Any], factor: float) -> None:
    assert change(tmp_path, config) == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize(
    "metadata",
    [
        {"lora_alpha": "8", "r": "2"},
        {"lora_adapter_metadata": '{"transformer.lora_alpha": 8, "transformer.r": 2}'},
    ],
)
def test_scale_comes_from_the_files_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    merged = state()
    save_file(lora_of("blocks.0.to_q"), tmp_path / "x.safetensors", metadata)
    merge_lora(merged, tmp_path / "x.safetensors")
    torch.testing.assert_close(merged["blocks.0.to_q.weight"], state()["blocks.0.to_q.weight"] + 4 * UP @ DOWN)


def test_scale_comes_from_the_caller_where_nothing_else_says(tmp_path: Path) -> None:
    assert change(tmp_path, None, alpha=8) == pytest.approx(4.0, rel=1e-3)
    with pytest.raises(ValueError, match=r"no alpha is known for the LoRA of blocks\.0\.to_q"):
        change(tmp_path, None)


def test_reads_folders_and_pickles(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no LoRA"):
        merge_lora(state(), tmp_path)
    folder, pickle = state(), state()
    merge_lora(folder, write(tmp_path, lora_of("blocks.0.to_q"), {"lora_alpha": ALPHA}).parent)
    torch.save(lora_of("base_model.model.blocks.0.to_q"), tmp_path / "lora.pt")
    merge_lora(pickle, tmp_path / "lora.pt")
    assert torch.equal(folder["blocks.0.to_q.weight"], pickle["blocks.0.to_q.weight"])
    assert not torch.equal(folder["blocks.0.to_q.weight"], state()["blocks.0.to_q.weight"])


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (lora_of("blocks.7.to_q"), r"does not have: blocks\.7\.to_q"),
        (lora_of("blocks.0.to_q") | {"blocks.0.to_q.lora_magnitude_vector": random(4)}, "lora_magnitude_vector"),
        ({"blocks.0.to_q.lora_A.weight": DOWN}, r"only one of lora_A and lora_B for blocks\.0\.to_q"),
        (lora_of("blocks.0.to_q", random(RANK, 6)), r"LoRA of blocks\.0\.to_q\.weight has lora_A \(2, 6\)"),
        (lora_of("blocks.0.to_q", random(3, 5)), r"lora_A \(3, 5\) and lora_B \(4, 2\)"),
        ({}, "holds no weights"),
    ],
)
def test_names_mismatched_parts(tmp_path: Path, lora: dict[str, Tensor], message: str) -> None:
    weights = state()
    with pytest.raises(ValueError, match=message):
        merge_lora(weights, write(tmp_path, lora, {"lora_alpha": ALPHA}))


def test_refuses_kinds_that_it_cannot_merge(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use_dora"):
        change(tmp_path, {"lora_alpha": 8, "use_dora": True})
