"""Small transformers with random weights, and inputs for them."""

from typing import Any

import torch
from torch import Tensor

from models.conditioning import Condition
from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal, TransformerConfig
from models.transformer import Transformer

NUM_CLASSES = 3
TEXT_WIDTH = 12


def make_config(conditioning: Conditioning = Conditioning.CLASS, **changes: Any) -> TransformerConfig:
    """A hybrid model with 4 frames of 4 x 4 latents."""
    values: dict[str, Any] = {
        "conditioning": conditioning,
        "layout": Layout.ALTERNATING,
        "temporal": Temporal.HYBRID,
        "depth": 4,
        "width": 16,
        "heads": 2,
        "patch_size": 2,
        "latent_channels": 4,
        "latent_size": 4,
        "num_frames": 4,
        "num_classes": NUM_CLASSES if conditioning is Conditioning.CLASS else None,
        "text_width": TEXT_WIDTH if conditioning is Conditioning.TEXT else None,
        "matrix": MatrixAttentionConfig(column_heads=2, row_heads=2, qk_tokens=2, v_tokens=6),
        "fuse": Fuse.CONCAT,
    }
    return TransformerConfig(**(values | changes))


def make_local_config(conditioning: Conditioning = Conditioning.CLASS, **changes: Any) -> TransformerConfig:
    """The smallest model there is: two blocks, local attention alone."""
    smallest = {"temporal": Temporal.LOCAL, "depth": 2, "matrix": None, "fuse": None}
    return make_config(conditioning, **(smallest | changes))


def make_transformer(config: TransformerConfig) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(config)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return transformer


def make_latents(config: TransformerConfig, rows: int, num_frames: int | None = None) -> Tensor:
    size = config.latent_size
    return torch.randn(rows, num_frames or config.num_frames, config.latent_channels, size, size)


def make_condition(config: TransformerConfig, rows: int) -> Condition:
    """Another label, or another prompt of another length, for each row."""
    if config.conditioning is Conditioning.CLASS:
        return Condition(labels=torch.arange(rows) % (NUM_CLASSES + 1))
    if config.conditioning is Conditioning.TEXT:
        return Condition.concat([Condition(text=torch.randn(1, 2 + row, TEXT_WIDTH)) for row in range(rows)])
    return Condition()
