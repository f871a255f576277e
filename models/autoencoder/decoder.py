"""Latents -> pixels, each frame alone.

Shapes: F frames, C latent channels, H W latent height and width, S = 2 ** (levels - 1) pixels to a latent position.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.autoencoder.blocks import MidBlock, NormSilu, ResnetBlock, Upsample
from models.autoencoder.config import AutoencoderConfig


class UpBlock(nn.Module):
    """One level of the decoder: residual blocks, then twice the height and width where `grows`."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, grows: bool) -> None:
        super().__init__()
        sizes = [inputs, *[outputs] * (layers - 1)]
        self.resnets = nn.ModuleList(ResnetBlock(size, outputs, groups) for size in sizes)
        self.upsamplers = nn.ModuleList([Upsample(outputs)] if grows else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Decoder(nn.Module):
    """(F, C, H, W) -> (F, 3, S H, S W)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MidBlock(channels[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(inputs, outputs, config.layers_per_block + 1, groups, grows=level < len(channels) - 1)
            for level, (inputs, outputs) in enumerate(zip((channels[0], *channels), channels, strict=False))
        )
        self.conv_norm_out: nn.Module = NormSilu(groups, channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.conv_norm_out(x))
        return out
