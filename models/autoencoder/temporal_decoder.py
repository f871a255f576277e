"""Latents -> pixels, the frames of a video together: the decoder of Stable Video Diffusion.

Shapes: F frames of one video, C channels, H W height and width, S = 2 ** (levels - 1) pixels to a latent position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.autoencoder.blocks import Attention, NormSilu, ResnetBlock, Upsample
from models.autoencoder.config import AutoencoderConfig

_TEMPORAL_EPS = 1e-5
_FRAMES_MIXED = 3


class TemporalResnetBlock(nn.Module):
    """(1, C, F, H, W) -> (1, C, F, H, W): a residual block whose convolutions go over time alone."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = NormSilu(groups, channels, _TEMPORAL_EPS)
        self.conv1 = _convolution_over_time(channels)
        self.norm2 = NormSilu(groups, channels, _TEMPORAL_EPS)
        self.conv2 = _convolution_over_time(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return out


class TimeMixer(nn.Module):
    """A learned mean of what each frame says alone and what the frames say together."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, alone: Tensor, together: Tensor) -> Tensor:
        share = 1 - torch.sigmoid(self.mix_factor).to(alone.dtype)
        return share * alone + (1 - share) * together


class SpatioTemporalBlock(nn.Module):
    """(F, C, H, W) -> (F, C', H, W)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.spatial_res_block = ResnetBlock(inputs, outputs, groups)
        self.temporal_res_block = TemporalResnetBlock(outputs, groups)
        self.time_mixer = TimeMixer()

    def forward(self, x: Tensor) -> Tensor:
        alone = _as_video(self.spatial_res_block(x))
        return _as_frames(self.time_mixer(alone, self.temporal_res_block(alone)))


class TemporalMidBlock(nn.Module):
    """(F, C, H, W) -> (F, C, H, W). Of more than two residual blocks, the published model runs the first two."""

    def __init__(self, channels: int, layers: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(SpatioTemporalBlock(channels, channels, groups) for _ in range(layers))
        self.attentions = nn.ModuleList([Attention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=False):
            x = resnet(attention(x))
        return x


class TemporalUpBlock(nn.Module):
    """One level of the decoder: residual blocks, then twice the height and width where `grows`."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, grows: bool) -> None:
        super().__init__()
        sizes = [inputs, *[outputs] * (layers - 1)]
        self.resnets = nn.ModuleList(SpatioTemporalBlock(size, outputs, groups) for size in sizes)
        self.upsamplers = nn.ModuleList([Upsample(outputs)] if grows else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class TemporalDecoder(nn.Module):
    """(F, C, H, W) -> (F, 3, S H, S W)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = TemporalMidBlock(channels[0], config.layers_per_block, groups)
        self.up_blocks = nn.ModuleList(
            TemporalUpBlock(inputs, outputs, config.layers_per_block + 1, groups, grows=level < len(channels) - 1)
            for level, (inputs, outputs) in enumerate(zip((channels[0], *channels), channels, strict=False))
        )
        self.conv_norm_out = NormSilu(groups, channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)
        self.time_conv_out = _convolution_over_time(config.out_channels)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        frames = self.conv_out(self.conv_norm_out(x))
        return _as_frames(self.time_conv_out(_as_video(frames)))


def _convolution_over_time(channels: int) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, (_FRAMES_MIXED, 1, 1), padding=(_FRAMES_MIXED // 2, 0, 0))


def _as_video(frames: Tensor) -> Tensor:
    """(F, C, H, W) -> (1, C, F, H, W)."""
    return frames[None].transpose(1, 2)


def _as_frames(video: Tensor) -> Tensor:
    """(1, C, F, H, W) -> (F, C, H, W)."""
    return video.transpose(1, 2)[0]
