"""The autoencoder: pixels to the distribution of their latents, and latents to pixels.

Shapes: F frames, C latent channels, H W latent height and width, S = 2 ** (levels - 1) pixels to a latent position.
Pixels lie in -1..1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.autoencoder.config import AutoencoderConfig
from models.autoencoder.decoder import Decoder
from models.autoencoder.encoder import Encoder
from models.autoencoder.posterior import Posterior
from models.autoencoder.temporal_decoder import TemporalDecoder


class Autoencoder(nn.Module):
    """Names of parameters are those of diffusers' AutoencoderKL and AutoencoderKLTemporalDecoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder: Decoder | TemporalDecoder = (TemporalDecoder if config.temporal_decoder else Decoder)(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.use_post_quant_conv else None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.encoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.encoder.conv_in.weight.dtype

    def encode(self, pixels: Tensor) -> Posterior:
        """The latents (F, C, H, W) of `pixels` (F, 3, S H, S W), as a distribution."""
        moments = self.encoder(pixels)
        return Posterior.from_moments(moments if self.quant_conv is None else self.quant_conv(moments))

    def decode(self, latents: Tensor) -> Tensor:
        """The pixels (F, 3, S H, S W) of `latents` (F, C, H, W); a temporal decoder takes F as one video."""
        decoded: Tensor = self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
        return decoded
