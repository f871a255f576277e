"""The VAE's decoder in channels-last layout with fused operations.

Shapes: F images, C channels, H W height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from models.kernels.group_norm import add_with_bias, group_norm


class _FusedNorm(nn.Module):
    """A group norm and the SiLU after it."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, x_bias: Tensor | None = None) -> Tensor:
        return group_norm(_channels_last(x), self.norm, silu=True, x_bias=x_bias)


class _FusedResnet(nn.Module):
    """(F, C, H, W) -> (F, C', H, W): `shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))))))`.

    The operation after a convolution adds its bias.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = _FusedNorm(block.norm1), block.conv1
        self.norm2, self.conv2 = _FusedNorm(block.norm2), block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        hidden = _convolve(self.conv1, self.norm1(x))
        hidden = _convolve(self.conv2, self.norm2(hidden, self.conv1.bias))
        if self.conv_shortcut is None:
            return add_with_bias(hidden, _channels_last(x), self.conv2.bias)
        bias = self.conv2.bias + self.conv_shortcut.bias
        return add_with_bias(hidden, _convolve(self.conv_shortcut, x), bias)


class _FusedUpsample(nn.Module):
    """(F, C, H, W) -> (F, C', 2 H, 2 W): every pixel four times, then a convolution."""

    def __init__(self, upsample: Any) -> None:
        super().__init__()
        self.conv = upsample.conv

    def forward(self, x: Tensor, output_size: None = None) -> Tensor:
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


def fuse_decoder(vae: AutoencoderKL) -> None:
    """Replace, in place, what `vae.decode` runs by fused operations on the same weights."""
    decoder: Any = vae.decoder
    decoder.to(memory_format=torch.channels_last)
    for part in (decoder.mid_block, *decoder.up_blocks):
        for index, block in enumerate(part.resnets):
            if _can_fuse_resnet(block):
                part.resnets[index] = _FusedResnet(block)
        for index, upsample in enumerate(getattr(part, "upsamplers", None) or ()):
            if _can_fuse_upsample(upsample):
                part.upsamplers[index] = _FusedUpsample(upsample)
    if _can_fuse(decoder.conv_norm_out, decoder.conv_act):
        decoder.conv_norm_out, decoder.conv_act = _FusedNorm(decoder.conv_norm_out), nn.Identity()


def _can_fuse_resnet(block: Any) -> bool:
    return (
        isinstance(block, ResnetBlock2D)
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and _is_power_of_two(block.out_channels)
        and _can_fuse(block.norm1, block.nonlinearity)
        and _can_fuse(block.norm2, block.nonlinearity)
    )


def _can_fuse_upsample(upsample: Any) -> bool:
    return (
        isinstance(upsample, Upsample2D)
        and upsample.norm is None
        and upsample.interpolate
        and upsample.name == "conv"
        and upsample.use_conv
        and not upsample.use_conv_transpose
    )


def _can_fuse(norm: nn.Module, activation: nn.Module) -> bool:
    """Whether `norm` is a group norm of sizes that the kernel takes, and SiLU follows it."""
    sizes = (norm.num_channels, norm.num_groups) if isinstance(norm, nn.GroupNorm) else ()
    return isinstance(activation, nn.SiLU) and bool(sizes) and all(map(_is_power_of_two, sizes))


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
