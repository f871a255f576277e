"""The FrameDiT transformer: noisy latents, timesteps and a condition in, predicted noise (and variance) out.

Shapes: B batch, T frames, C H W latent channels, height and width, N tokens per frame, D width, L text tokens.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.cross import MASKED_SCORE
from models.blocks import Block
from models.conditioning import Condition
from models.config import Conditioning, Layout, TransformerConfig
from models.embeddings import TimestepEmbedding, frame_positions, patchify, token_positions, unpatchify
from models.modulation import AdaLNSingle, AdaLNZero, modulate

PIXART_LATENT_SIZE = 64


class TextProjection(nn.Module):
    """Encoded text (B, L, E) -> (B, L, D): two linear maps with a GELU (tanh approximation) between."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(text_width, width)
        self.contract = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        projected: Tensor = self.contract(F.gelu(self.expand(text), approximate="tanh"))
        return projected


class Transformer(nn.Module):
    """Every FrameDiT variant: what differs is its config."""

    token_positions: Tensor
    frame_positions: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, patch_values = config.width, config.patch_size**2
        is_text = config.conditioning is Conditioning.TEXT
        self.patch_embedding = nn.Linear(config.latent_channels * patch_values, width)
        for name, table in position_tables(config).items():
            self.register_buffer(name, table)
        self.timestep_embedding = TimestepEmbedding(width)
        # The last row is the null class, which guidance pushes away from.
        self.label_embedding = None if config.num_classes is None else nn.Embedding(config.num_classes + 1, width)
        self.text_projection = None if config.text_width is None else TextProjection(config.text_width, width)
        self.modulation = (AdaLNSingle if is_text else AdaLNZero)(width, config.depth)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.output = nn.Linear(width, patch_values * config.out_channels)

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Predict the noise in `latents`.

        Args:
            latents: (B, T, C, H, W), T at most the frames of the config.
            timesteps: (B,), 0..999, each row its own.
            condition: B rows of what the model is conditioned on.

        Returns:
            (B, T, out_channels, H, W): the noise, then (when learned) the variance's C channels.

        Raises:
            ValueError: for shapes or labels that this checkpoint does not take; it says which it does.
        """
        config = self.config
        self._check(latents, timesteps, condition)
        x = self.patch_embedding(patchify(latents, config.patch_size)) + self.token_positions
        embedded = self.timestep_embedding(timesteps)
        if self.label_embedding is not None:
            embedded = embedded + self.label_embedding(condition.labels)
        modulation = self.modulation(embedded)
        text, text_bias = self._project_text(condition)
        if config.layout is Layout.JOINT:
            x = self._add_frame_positions(x)
        for index, block in enumerate(self.blocks):
            if index == 1 and config.layout is Layout.ALTERNATING:
                x = self._add_frame_positions(x)
            x = block(x, modulation.blocks[index], text, text_bias)
        return unpatchify(self.output(modulate(x, *modulation.output)), config.patch_size, config.out_channels)

    def _add_frame_positions(self, x: Tensor) -> Tensor:
        num_frames = x.shape[1]
        if num_frames == 1 and self.config.conditioning is Conditioning.TEXT:
            return x  # the text family treats a single frame as an image
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
    """The sin-cos tables `token_positions` (N, D) and `frame_positions` (frames of the config, D)."""
    is_text = config.conditioning is Conditioning.TEXT
    interpolation = max(config.latent_size // PIXART_LATENT_SIZE, 1) if is_text else 1
    return {
        "token_positions": token_positions(math.isqrt(config.tokens_per_frame), config.width, interpolation),
        "frame_positions": frame_positions(config.num_frames, config.width),
    }


def count_parameters(module: nn.Module) -> int:
    """Numbers in the parameters of `module`, the stored position tables not counted."""
    return sum(parameter.numel() for parameter in module.parameters())
