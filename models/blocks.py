"""The transformer block: attention and MLP under adaptive layer norm, with cross attention in the text family.

Shapes: B batch, T frames, N tokens per frame, D width, L text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.cross import CrossAttention
from models.attention.hybrid import HybridAttention
from models.attention.local import FullAttention, LocalAttention, SpatialAttention
from models.attention.matrix import MatrixAttention
from models.config import Conditioning, Layout, Temporal, TransformerConfig
from models.modulation import modulate

MLP_RATIO = 4


class Mlp(nn.Module):
    """Two linear maps with a GELU (tanh approximation) between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, MLP_RATIO * width)
        self.contract = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.contract(F.gelu(self.expand(x), approximate="tanh"))
        return hidden


class Block(nn.Module):
    """(B, T, N, D) -> (B, T, N, D)."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.attention = build_attention(config, index)
        reads_text = config.conditioning is Conditioning.TEXT and not config.is_temporal(index)
        self.cross = CrossAttention(config.width, config.heads) if reads_text else None
        self.mlp = Mlp(config.width)

    def forward(
        self, x: Tensor, modulation: tuple[Tensor, ...], text: Tensor | None, text_bias: Tensor | None
    ) -> Tensor:
        """`modulation`: six (B, 1, 1, D); `text` (B, L, D) and its score bias (B, 1, 1, L) in the text family."""
        attention_shift, attention_scale, attention_gate, mlp_shift, mlp_scale, mlp_gate = modulation
        x = torch.addcmul(x, attention_gate, self.attention(modulate(x, attention_shift, attention_scale)))
        if self.cross is not None:
            x = x + self.cross(x, text, text_bias)  # no norm before it, as published
        return torch.addcmul(x, mlp_gate, self.mlp(modulate(x, mlp_shift, mlp_scale)))


def build_attention(config: TransformerConfig, index: int) -> nn.Module:
    """The self-attention of block number `index`."""
    if config.layout is Layout.JOINT:
        return FullAttention(config.width, config.heads)
    if not config.is_temporal(index):
        return SpatialAttention(config.width, config.heads)
    if config.temporal is Temporal.LOCAL:
        return LocalAttention(config.width, config.heads)
    assert config.matrix is not None
    if config.temporal is Temporal.MATRIX:
        return MatrixAttention(config.matrix, config.tokens_per_frame, config.width)
    assert config.fuse is not None
    return HybridAttention(config.matrix, config.fuse, config.tokens_per_frame, config.width, config.heads)
