"""The distribution of the latents of given frames: normal, each number on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LOG_VARIANCES = (-30.0, 20.0)


@dataclass(frozen=True)
class Posterior:
    """`mean` and `log_variance`, both (F, C, H, W): F frames, C latent channels, H W latent height and width."""

    mean: Tensor
    log_variance: Tensor

    @staticmethod
    def from_moments(moments: Tensor) -> Posterior:
        """Of the encoder's output (F, 2 C, H, W)."""
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*_LOG_VARIANCES))

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        return torch.exp(0.5 * self.log_variance)

    def sample(self) -> Tensor:
        """Random latents, by PyTorch's own generator."""
        return self.mean + self.std * torch.randn_like(self.mean, memory_format=torch.contiguous_format)

    def kl(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, in nats a frame: (F,)."""
        terms = self.mean.pow(2) + self.log_variance.exp() - 1.0 - self.log_variance
        return 0.5 * terms.sum(dim=(1, 2, 3))
