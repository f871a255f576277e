"""The FrameDiT transformer: noisy latents, timesteps and a condition in, predicted noise (and variance) out.

Shapes: B batch, T frames, C H W latent channels, height and width, N tokens per frame, D width, L text tokens,
E width of the text encoder's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.adapters.row_adapters import RowAdapters
from models.attention.cross import MASKED_SCORE
from models.attention.frame_split import FrameSplit
from models.blocks import Block
from models.conditioning import Condition
from models.config import AttentionMode, Conditioning, Layout, TransformerConfig
from models.embeddings import (
    FREQUENCIES,
    frame_positions,
    patchify,
    timestep_features,
    token_positions,
    unpatchify,
)
from models.mlp import Mlp
from models.modulation import AdaLNSingle, AdaLNZero, Modulation, modulate

PIXART_LATENT_SIZE = 64

RunBlocks = Callable[[Tensor, Modulation, Tensor | None, Tensor | None, FrameSplit | None], Tensor]


class Transformer(nn.Module):
    """Every FrameDiT variant; the config selects the parts."""

    token_positions: Tensor
    frame_positions: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, patch_values = config.width, config.patch_size**2
        is_text = config.conditioning is Conditioning.TEXT
        self.patch_embedding = nn.Linear(config.latent_channels * patch_values, width)
        for name, table in position_tables(config).items():
            self.register_buffer(name, table.to(torch.get_default_device()))
        self.timestep_embedding = Mlp(FREQUENCIES, width, width, F.silu)
        # The last row is the null class: guidance uses it as the unconditional label.
        self.label_embedding = None if config.num_classes is None else nn.Embedding(config.num_classes + 1, width)
        self.text_projection = None if config.text_width is None else Mlp(config.text_width, width, width)
        self.modulation = (AdaLNSingle if is_text else AdaLNZero)(width, config.depth)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.output = nn.Linear(width, patch_values * config.out_channels)
        self.fused_blocks: RunBlocks | None = None  # same function as `_run_blocks`, from `models.kernels`

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        condition: Condition,
        adapters: RowAdapters | None = None,
        rows: slice | None = None,
        split: FrameSplit | None = None,
    ) -> Tensor:
        """Predict the noise in `latents`.

        Args:
            latents: (B, T, C, H, W), T at most `config.num_frames`.
            timesteps: (B,), 0..999, one per row.
            condition: labels or text, B rows.
            adapters: of the B rows; such a pass runs without fused operations.
            rows: compute these rows only, without adapters. They get the numbers of a pass of all rows wherever
                products of all their tokens are rounded alike. The conditions of all rows are computed in any case:
                a product of very few rows often is rounded otherwise.
            split: compute the frames of this process only, without adapters, while others compute the rest.

        Returns:
            (B, T, out_channels, H, W), B and T those that are computed: C channels of noise, then C channels of
            variance if the model learns it.

        Raises:
            ValueError: for shapes or labels that the checkpoint does not accept.
        """
        self._check(latents, timesteps, condition)
        if adapters is None:
            return self._predict(latents, timesteps, condition, self.fused_blocks or self._run_blocks, rows, split)
        with adapters.applied_to(self):
            return self._predict(latents, timesteps, condition, self._run_blocks)

    def _predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        condition: Condition,
        run_blocks: RunBlocks,
        rows: slice | None = None,
        split: FrameSplit | None = None,
    ) -> Tensor:
        config = self.config
        embedded = self.timestep_embedding(timestep_features(timesteps).to(latents.dtype))
        if self.label_embedding is not None:
            embedded = embedded + self.label_embedding(condition.labels)
        modulation = self.modulation(embedded)
        text, text_bias = self._project_text(condition)
        if rows is not None:
            latents, modulation = latents[rows], modulation.rows(rows)
            text, text_bias = (None if part is None else part[rows] for part in (text, text_bias))
        if split is not None:
            latents = latents[:, split.part]
        x = self.patch_embedding(patchify(latents, config.patch_size)) + self.token_positions
        x = run_blocks(x, modulation, text, text_bias, split)
        return unpatchify(self.output(x), config.patch_size, config.out_channels)

    def _run_blocks(
        self,
        x: Tensor,
        modulation: Modulation,
        text: Tensor | None,
        text_bias: Tensor | None,
        split: FrameSplit | None = None,
    ) -> Tensor:
        """All blocks and the norm before the output layer: (B, T, N, D) -> (B, T, N, D)."""
        for index, block in enumerate(self.blocks):
            if index == self.positioned_block:
                x = self.add_frame_positions(x, split)
            x = block(x, modulation.blocks[index], text, text_bias, split)
        return modulate(x, *modulation.output)  # (1 + scale) * norm(x) + shift

    @property
    def positioned_block(self) -> int | None:
        """Index of the block whose input gets the frame positions: the first one that attends over time."""
        return {Layout.JOINT: 0, Layout.ALTERNATING: 1, Layout.SPATIAL: None}[self.config.layout]

    @property
    def can_split_frames(self) -> bool:
        """Whether several processes can share the frames of a pass.

        In the published `flash` mode of joint attention, an output depends on all heads of other tokens.
        """
        config = self.config
        return config.layout is not Layout.JOINT or config.attention_mode is AttentionMode.MATH

    def add_frame_positions(self, x: Tensor, split: FrameSplit | None = None) -> Tensor:
        if split is not None:
            return x + self.frame_positions[split.part, None]
        num_frames = x.shape[1]
        if num_frames == 1 and self.config.conditioning is Conditioning.TEXT:
            return x  # the text family treats a single frame as an image, without a frame position
        return x + self.frame_positions[:num_frames, None]

    def _project_text(self, condition: Condition) -> tuple[Tensor | None, Tensor | None]:
        if self.text_projection is None:
            return None, None
        text = self.text_projection(condition.text)
        if condition.text_mask is None:
            return text, None
        return text, ((1 - condition.text_mask.to(text.dtype)) * MASKED_SCORE)[:, None, None]

    def _check(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> None:
        config = self.config
        frame = (config.latent_channels, config.latent_size, config.latent_size)
        if latents.ndim != 5 or latents.shape[2:] != frame or not 1 <= latents.shape[1] <= config.num_frames:
            raise ValueError(
                f"got latents of shape {tuple(latents.shape)}: this checkpoint takes (batch, frames, "
                f"{', '.join(map(str, frame))}) with 1 to {config.num_frames} frames"
            )
        if timesteps.shape != latents.shape[:1]:
            raise ValueError(
                f"got timesteps of shape {tuple(timesteps.shape)}: one for each of {latents.shape[0]} samples is needed"
            )
        condition.check(config, rows=latents.shape[0])


def position_tables(config: TransformerConfig) -> dict[str, Tensor]:
    """Sin-cos tables `token_positions` (N, D) and `frame_positions` (config.num_frames, D)."""
    is_text = config.conditioning is Conditioning.TEXT
    interpolation = max(config.latent_size // PIXART_LATENT_SIZE, 1) if is_text else 1
    with torch.device("cpu"):  # on the meta device, `torch.arange` imports PyTorch's compiler
        return {
            "token_positions": token_positions(math.isqrt(config.tokens_per_frame), config.width, interpolation),
            "frame_positions": frame_positions(config.num_frames, config.width),
        }


def count_parameters(module: nn.Module) -> int:
    """Number of parameters in `module`, without the stored position tables."""
    return sum(parameter.numel() for parameter in module.parameters())
