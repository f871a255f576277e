"""The transformer block: attention and MLP under adaptive layer norm, with cross attention in the text family.

Shapes: B batch, T frames, N tokens per frame, D width, L text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention.cross import CrossAttention
from models.attention.frame_split import FrameSplit
from models.attention.hybrid import HybridAttention
from models.attention.local import FullAttention, LocalAttention, SpatialAttention
from models.attention.matrix import MatrixAttention
from models.config import Conditioning, Layout, Temporal, TransformerConfig
from models.mlp import Mlp
from models.modulation import modulate

MLP_RATIO = 4


class Block(nn.Module):
    """(B, T, N, D) -> (B, T, N, D)."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.attention = build_attention(config, index)
        reads_text = config.conditioning is Conditioning.TEXT and not config.is_temporal(index)
        self.cross = CrossAttention(config.width, config.heads) if reads_text else None
        self.mlp = Mlp(config.width, MLP_RATIO * config.width, config.width)

    def forward(
        self,
        x: Tensor,
        modulation: tuple[Tensor, ...],
        text: Tensor | None,
        text_bias: Tensor | None,
        split: FrameSplit | None = None,
    ) -> Tensor:
        """`modulation`: six (B, 1, 1, D); `text` (B, L, D) and its score bias (B, 1, 1, L) in the text family.

        With `split`, T are the frames of this process.
        """
        attention_shift, attention_scale, attention_gate, mlp_shift, mlp_scale, mlp_gate = modulation
        # x + gate * attention((1 + scale) * norm(x) + shift)
        x = torch.addcmul(x, attention_gate, self.attention(modulate(x, attention_shift, attention_scale), split))
        if self.cross is not None:
            x = x + self.cross(x, text, text_bias)  # the published model has no norm before it
        # x + gate * mlp((1 + scale) * norm(x) + shift)
        return torch.addcmul(x, mlp_gate, self.mlp(modulate(x, mlp_shift, mlp_scale)))


def build_attention(config: TransformerConfig, index: int) -> nn.Module:
    """Self-attention module of block `index`."""
    if config.layout is Layout.JOINT:
        return FullAttention(config.width, config.heads, config.attention_mode)
    if not config.is_temporal(index):
        return SpatialAttention(config.width, config.heads, config.attention_mode)
    if config.temporal is Temporal.LOCAL:
        return LocalAttention(config.width, config.heads, config.attention_mode)
    assert config.matrix is not None
    if config.temporal is Temporal.MATRIX:
        return MatrixAttention(config.matrix, config.tokens_per_frame, config.width)
    assert config.fuse is not None
    return HybridAttention(config.matrix, config.fuse, config.tokens_per_frame, config.width, config.heads)
