"""The VAE's decoder in channels-last layout with fused operations.

Shapes: F images, C channels, H W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.blocks import NormSilu, ResnetBlock, Upsample
from models.autoencoder.decoder import Decoder, UpBlock
from models.kernels.group_norm import add_with_bias, group_norm


class _FusedNorm(nn.Module):
    """A group norm and the SiLU after it."""

    def __init__(self, norm: NormSilu) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, x_bias: Tensor | None = None) -> Tensor:
        return group_norm(_channels_last(x), self.norm, silu=True, x_bias=x_bias)


class _FusedResnet(nn.Module):
    """(F, C, H, W) -> (F, C', H, W): `shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))))))`.

    The operation after a convolution adds its bias.
    """

    def __init__(self, block: ResnetBlock) -> None:
        super().__init__()
        self.norm1, self.conv1 = _FusedNorm(block.norm1), block.conv1
        self.norm2, self.conv2 = _FusedNorm(block.norm2), block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Tensor) -> Tensor:
        hidden = _convolve(self.conv1, self.norm1(x))
        hidden = _convolve(self.conv2, self.norm2(hidden, self.conv1.bias))
        assert self.conv2.bias is not None
        if self.conv_shortcut is None:
            return add_with_bias(hidden, _channels_last(x), self.conv2.bias)
        assert self.conv_shortcut.bias is not None
        bias = self.conv2.bias + self.conv_shortcut.bias
        return add_with_bias(hidden, _convolve(self.conv_shortcut, x), bias)


class _FusedUpsample(nn.Module):
    """(F, C, H, W) -> (F, C', 2 H, 2 W): every pixel four times, then a convolution."""

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        self.conv = upsample.conv

    def forward(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        pixels = _channels_last(x).permute(0, 2, 3, 1)[:, :, None, :, None]
        repeated = pixels.expand(-1, -1, 2, -1, 2, -1).reshape(images, 2 * height, 2 * width, channels)
        out: Tensor = self.conv(repeated.permute(0, 3, 1, 2))
        return out


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Without the bias."""
    return _channels_last(F.conv2d(x, conv.weight, None, conv.stride, conv.padding))


def fuse_decoder(vae: Autoencoder) -> None:
    """Replace, in place, what `vae.decode` runs by fused operations on the same weights. Not for temporal decoders."""
    decoder = vae.decoder
    assert isinstance(decoder, Decoder)
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _fuse_resnets(decoder.mid_block.resnets)
    for part in decoder.up_blocks:
        assert isinstance(part, UpBlock)
        _fuse_resnets(part.resnets)
        for index, upsample in enumerate(part.upsamplers):
            assert isinstance(upsample, Upsample)
            part.upsamplers[index] = _FusedUpsample(upsample)
    if isinstance(decoder.conv_norm_out, NormSilu) and _can_fuse(decoder.conv_norm_out):
        decoder.conv_norm_out = _FusedNorm(decoder.conv_norm_out)


def _fuse_resnets(blocks: nn.ModuleList) -> None:
    for index, block in enumerate(blocks):
        assert isinstance(block, ResnetBlock)
        if _can_fuse(block.norm1) and _can_fuse(block.norm2):
            blocks[index] = _FusedResnet(block)


def _can_fuse(norm: NormSilu) -> bool:
    """Whether the kernel takes a group norm of these sizes."""
    return _is_power_of_two(norm.num_channels) and _is_power_of_two(norm.num_groups)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
