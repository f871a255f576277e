"""The folders and files that users convert, made tiny: published `.pt` files and diffusers folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LatteTransformer3DModel
from torch import Tensor, nn

from models import registry
from models.checkpoint.vae import save_vae
from tests.golden.loading import read_golden
from tests.models.parts import TEXT_WIDTH, make_vae, save_text_parts

GOLDEN = Path(__file__).parents[2] / "golden"


def golden_state(name: str) -> dict[str, Tensor]:
    _, tensors = read_golden(GOLDEN / f"{name}.safetensors")
    return {key.removeprefix("state."): tensor for key, tensor in tensors.items() if key.startswith("state.")}


def golden_tensors(name: str) -> dict[str, Tensor]:
    return read_golden(GOLDEN / f"{name}.safetensors")[1]


def shrink_published_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the published names the sizes of the golden files."""
    monkeypatch.setitem(registry.SIZES, "S", (4, 32, 4))
    monkeypatch.setattr(registry, "COLUMN_HEADS", 4)
    for name in registry.TEXT_MODELS:
        small = {"num_layers": 2, "sample_size": 8, "caption_channels": TEXT_WIDTH, "num_col_attn_heads": 8}
        monkeypatch.setitem(registry.TEXT_MODELS, name, registry.TEXT_MODELS[name] | small)


def save_training_output(path: Path, state: dict[str, Tensor], prefix: str = "_orig_mod.module.", **more: Any) -> Path:
    torch.save({"ema": {prefix + key: tensor for key, tensor in state.items()}, **more}, path)
    return path


def save_tiny_vae(folder: Path) -> Path:
    save_vae(make_vae(), folder)
    return folder


def make_latte() -> LatteTransformer3DModel:
    """diffusers' Latte, of the sizes of the golden text files, all of its weights random."""
    torch.manual_seed(0)
    model = LatteTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=32,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=TEXT_WIDTH,
        video_length=4,
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save_diffusers_folder(folder: Path, **transformer: Any) -> Path:
    """A folder of Latte-1's layout; `transformer` are options of its transformer's `save_pretrained`."""
    make_latte().save_pretrained(folder / "transformer", **transformer)
    save_tiny_vae(folder / "vae")
    save_text_parts(folder)
    make_scheduler().save_pretrained(folder / "scheduler")
    return folder


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=1e-4, beta_end=2e-2, beta_schedule="linear", clip_sample=False)
