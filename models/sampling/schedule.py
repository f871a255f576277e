"""The training noise schedule, and the noise levels that a sampler visits on it.

A latent at timestep t is `alpha_t * clean + sigma_t * noise`, with `alpha_t**2 = alphas_cumprod[t]` and
`alpha_t**2 + sigma_t**2 = 1` (variance preserving). Everything here is float64: a table is rounded once, at its end.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseSchedule:
    """Linear betas from `beta_start` to `beta_end` over `num_train_timesteps` (Ho et al. 2020, section 4)."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2

    def __post_init__(self) -> None:
        if self.num_train_timesteps < 1:
            raise ValueError(f"got num_train_timesteps {self.num_train_timesteps}: a schedule has at least 1")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"got beta_start {self.beta_start} and beta_end {self.beta_end}: "
                "a linear schedule takes 0 < beta_start <= beta_end < 1"
            )

    @cached_property
    def alphas_cumprod(self) -> torch.Tensor:
        """(num_train_timesteps,) float64: the product of `1 - beta` up to and including each timestep."""
        betas = torch.linspace(self.beta_start, self.beta_end, self.num_train_timesteps, dtype=torch.float64)
        return torch.cumprod(1 - betas, dim=0)


@dataclass(frozen=True)
class NoiseLevels:
    """The levels that a sampler of n steps visits: n noisy ones, falling, then the clean end (alpha 1, sigma 0)."""

    alphas: Floats  # (n + 1,)
    sigmas: Floats  # (n + 1,)

    @cached_property
    def log_snrs(self) -> Floats:
        """(n + 1,) lambda = log(alpha / sigma), half the log signal-to-noise ratio; infinite at the clean end."""
        with np.errstate(divide="ignore"):
            return np.log(self.alphas) - np.log(self.sigmas)


def noise_levels(schedule: NoiseSchedule, timesteps: Floats) -> NoiseLevels:
    """The levels at `timesteps` (n,), falling. Between whole timesteps the ratio sigma / alpha is interpolated."""
    alphas_cumprod = schedule.alphas_cumprod.numpy()
    trained = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
    ratios = np.append(np.interp(timesteps, np.arange(len(trained)), trained), 0.0)
    alphas = 1 / np.sqrt(1 + ratios**2)
    return NoiseLevels(alphas=alphas, sigmas=ratios * alphas)
