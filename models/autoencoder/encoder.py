"""Pixels -> moments of the latents.

Shapes: F frames, C latent channels, H W latent height and width, S = 2 ** (levels - 1) pixels to a latent position.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.autoencoder.blocks import Downsample, MidBlock, NormSilu, ResnetBlock
from models.autoencoder.config import AutoencoderConfig


class DownBlock(nn.Module):
    """One level of the encoder: residual blocks, then half the height and width where `shrinks`."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, shrinks: bool) -> None:
        super().__init__()
        sizes = [inputs, *[outputs] * (layers - 1)]
        self.resnets = nn.ModuleList(ResnetBlock(size, outputs, groups) for size in sizes)
        self.downsamplers = nn.ModuleList([Downsample(outputs)] if shrinks else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """(F, 3, S H, S W) -> (F, 2 C, H, W): mean and log variance, before the 1x1 convolution."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(inputs, outputs, config.layers_per_block, groups, shrinks=level < len(channels) - 1)
            for level, (inputs, outputs) in enumerate(zip((channels[0], *channels), channels, strict=False))
        )
        self.mid_block = MidBlock(channels[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = NormSilu(groups, channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.conv_norm_out(self.mid_block(x)))
        return out
