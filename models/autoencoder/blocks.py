"""The blocks of which both halves of an autoencoder are made. Names of parameters are those of diffusers.

Shapes: F frames, C channels, H W height and width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
# The channels-last kernel of nearest-neighbour interpolation fails beyond so many numbers.
_MAX_CHANNELS_LAST = 2**31


class NormSilu(nn.GroupNorm):
    """A group norm, then SiLU."""

    def __init__(self, groups: int, channels: int, eps: float = EPS) -> None:
        super().__init__(groups, channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


class ResnetBlock(nn.Module):
    """(F, C, H, W) -> (F, C', H, W): `shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))))))`."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = NormSilu(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = NormSilu(groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        shortcut: Tensor = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return shortcut + hidden


class Attention(nn.Module):
    """(F, C, H, W) -> (F, C, H, W): every position of a frame attends to all of them, with one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        positions = self.group_norm(x.flatten(2)).transpose(1, 2)
        q, k, v = (project(positions)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        attended: Tensor = self.to_out[0](F.scaled_dot_product_attention(q, k, v)[:, 0])
        return attended.transpose(1, 2).reshape(x.shape) + x


class MidBlock(nn.Module):
    """(F, C, H, W) -> (F, C, H, W): two residual blocks with attention between them."""

    def __init__(self, channels: int, groups: int, add_attention: bool) -> None:
        super().__init__()
        first = ResnetBlock(channels, channels, groups)
        self.attentions = nn.ModuleList([Attention(channels, groups)] if add_attention else [])
        self.resnets = nn.ModuleList([first, ResnetBlock(channels, channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x)
        return out


class Downsample(nn.Module):
    """(F, C, H, W) -> (F, C, H / 2, W / 2). The padding lies on the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """(F, C, H, W) -> (F, C, 2 H, 2 W): every pixel four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if 4 * x.numel() > _MAX_CHANNELS_LAST:
            x = x.contiguous()
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out
