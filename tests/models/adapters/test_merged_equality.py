"""An adapter by name computes what the merged LoRA computes, in every design and both families."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.adapters.adapter import ScaledAdapter
from models.adapters.read import read_adapter
from models.adapters.row_adapters import RowAdapters
from models.adapters.targets import find_targets
from models.conditioning import Condition
from models.config import Conditioning
from models.conversion.lora import merge_lora
from models.conversion.state_dict import convert_state_dict
from models.registry import PublishedModel, from_class_settings, from_text_settings
from models.transformer import Transformer
from tests.golden.loading import read_golden
from tests.models.adapters.adapter_folders import random_lora, write_adapter

GOLDEN = Path(__file__).parents[2] / "golden"
MAX_BYTES = 1 << 20


def published(name: str) -> tuple[PublishedModel, dict[str, Tensor], dict[str, Tensor]]:
    """The model of a golden file, its published weights, and the inputs of one pass."""
    settings, tensors = read_golden(GOLDEN / f"{name}.safetensors")
    read = from_text_settings if name.endswith("t2v") else from_class_settings
    state = {key.removeprefix("state."): tensor for key, tensor in tensors.items() if key.startswith("state.")}
    return read(settings), state, tensors


def load(model: PublishedModel, state: dict[str, Tensor]) -> Transformer:
    transformer = Transformer(model.config).eval().requires_grad_(False)
    transformer.load_state_dict(convert_state_dict(state, model))
    return transformer


def run(transformer: Transformer, tensors: dict[str, Tensor], adapters: RowAdapters | None = None) -> Tensor:
    x, timesteps = tensors["in.x"], tensors["in.t"]
    if transformer.config.conditioning is Conditioning.TEXT:
        condition = Condition(text=tensors["in.text"], text_mask=tensors["in.text_mask"])
        return transformer(x.transpose(1, 2), timesteps, condition, adapters)
    return transformer(x, timesteps, Condition(labels=tensors.get("in.y")), adapters)


@pytest.mark.parametrize(
    "name",
    [
        "dit3d",
        "framedit_g",
        "framedit_h_concat",
        "framedit_h_gated",
        "framedit_h_sum_uncond",
        "latte",
        "framedit_h_t2v",
        "latte_t2v",
    ],
)
@torch.no_grad()
def test_a_named_adapter_equals_the_merged_lora(name: str, tmp_path: Path) -> None:
    """All linear layers that the published model has are adapted, the patch embedding as the convolution that it is."""
    model, state, tensors = published(name)
    targets = {module: target for module, target in find_targets(model.config).items() if f"{module}.weight" in state}
    lora = random_lora(targets, rank=2, std=0.05)
    for module in targets:
        if state[f"{module}.weight"].ndim == 4:
            shape = state[f"{module}.weight"].shape
            down, up = f"base_model.model.{module}.lora_A.weight", f"base_model.model.{module}.lora_B.weight"
            lora |= {down: lora[down].view(-1, *shape[1:]), up: lora[up][..., None, None].contiguous()}
    folder = write_adapter(tmp_path / "all", lora)
    base = run(load(model, state), tensors)
    named = read_adapter(folder, model.config, MAX_BYTES)
    rows = len(tensors["in.x"])
    adapted = run(load(model, state), tensors, RowAdapters.of([(ScaledAdapter(named, 1.0),)] * rows))

    merged_state = {key: tensor.clone() for key, tensor in state.items()}
    merged = merge_lora(merged_state, folder)
    assert len(merged) == len(targets) > 10
    expected = run(load(model, merged_state), tensors)
    assert (expected - base).norm() > 0.01 * base.norm(), "the adapter changes nothing, so the test shows nothing"
    torch.testing.assert_close(adapted, expected, rtol=1e-4, atol=1e-4)
