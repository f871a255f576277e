"""The training noise schedule, and the noise levels that a sampler visits on it.

A latent at timestep t is `alpha_t * clean + sigma_t * noise`, with `alpha_t**2 = alphas_cumprod[t]` and
`alpha_t**2 + sigma_t**2 = 1` (variance preserving). Everything here is float64: a table is rounded once, at its end.

The fields of a schedule have the names of diffusers' `scheduler_config.json`.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class BetaSchedule(StrEnum):
    """How the variance of the noise, beta, grows over the training timesteps."""

    LINEAR = "linear"
    SCALED_LINEAR = "scaled_linear"  # linear in the square root of beta


class PredictionType(StrEnum):
    """The quantity that the transformer estimates."""

    NOISE = "epsilon"
    CLEAN = "sample"
    VELOCITY = "v_prediction"  # alpha * noise - sigma * clean (Salimans & Ho 2022)


class Spacing(StrEnum):
    """How a sampler spreads its steps over the training timesteps (Lin et al. 2023, table 2)."""

    LEADING = "leading"
    LINSPACE = "linspace"
    TRAILING = "trailing"


class VarianceType(StrEnum):
    """The variance of the noise that an ancestral sampler adds: a bound on the reverse variance, or between both."""

    SMALL = "fixed_small"
    LARGE = "fixed_large"
    LEARNED = "learned_range"


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise of training, and the conventions that samplers follow on it.

    Attributes:
        rescale_betas_zero_snr: shift the schedule so that its last timestep is pure noise (Lin et al. 2023).
        timestep_spacing, variance_type: None leaves the choice to each sampler.
        steps_offset: added to the timesteps of "leading" spacing.
        set_alpha_to_one: `ddim` ends at the clean latent; otherwise it ends at the noise level of timestep 0.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    beta_schedule: BetaSchedule = BetaSchedule.LINEAR
    rescale_betas_zero_snr: bool = False
    prediction_type: PredictionType = PredictionType.NOISE
    timestep_spacing: Spacing | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    variance_type: VarianceType | None = None

    def __post_init__(self) -> None:
        if self.num_train_timesteps < 1:
            raise ValueError(f"got num_train_timesteps {self.num_train_timesteps}: a schedule has at least 1")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"got beta_start {self.beta_start} and beta_end {self.beta_end}: "
                "a schedule needs 0 < beta_start <= beta_end < 1"
            )
        if not 0 <= self.steps_offset < self.num_train_timesteps:
            raise ValueError(
                f"got steps_offset {self.steps_offset}: allowed are 0 to {self.num_train_timesteps - 1}, "
                "the trained timesteps"
            )

    @cached_property
    def alphas_cumprod(self) -> torch.Tensor:
        """(num_train_timesteps,) float64: the product of `1 - beta` up to and including each timestep."""
        alphas_cumprod = torch.cumprod(1 - self._betas(), dim=0)
        return _with_zero_terminal_snr(alphas_cumprod) if self.rescale_betas_zero_snr else alphas_cumprod

    def _betas(self) -> torch.Tensor:
        """(num_train_timesteps,) float64."""
        power = 1 if self.beta_schedule is BetaSchedule.LINEAR else 0.5
        first, last = self.beta_start**power, self.beta_end**power
        return torch.linspace(first, last, self.num_train_timesteps, dtype=torch.float64) ** (1 / power)

    def noise_to_signal(self, smallest_alpha: float = 0.0) -> Floats:
        """(num_train_timesteps,) sigma / alpha of each timestep, infinite where alpha is 0."""
        alphas_cumprod = np.maximum(self.alphas_cumprod.numpy(), smallest_alpha**2)
        with np.errstate(divide="ignore"):
            ratios: Floats = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
        return ratios


def _with_zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Shift and stretch `sqrt(alphas_cumprod)` so that its last value is 0 and its first stays (Lin et al. 2023)."""
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)) ** 2


@dataclass(frozen=True)
class NoiseLevels:
    """The noise levels that a sampler of n steps visits, falling, and the level that each step leads to.

    A step leads to the next step's level. Only `ddim` on unusual timesteps leads to a level beside it.
    """

    alphas: Floats  # (n,)
    sigmas: Floats  # (n,)
    next_alphas: Floats  # (n,)
    next_sigmas: Floats  # (n,)
    prediction_type: PredictionType

    @property
    def num_steps(self) -> int:
        return len(self.alphas)

    @cached_property
    def log_snrs(self) -> Floats:
        """(n + 1,) lambda = log(alpha / sigma), half the log signal-to-noise ratio; infinite at a clean end."""
        with np.errstate(divide="ignore"):
            alphas, sigmas = np.append(self.alphas, self.next_alphas[-1]), np.append(self.sigmas, self.next_sigmas[-1])
            log_snrs: Floats = np.log(alphas) - np.log(sigmas)
        return log_snrs


def noise_levels(
    schedule: NoiseSchedule,
    timesteps: Floats,
    *,
    stride: int | None = None,
    ends_clean: bool = True,
    smallest_alpha: float = 0.0,
) -> NoiseLevels:
    """The levels at `timesteps` (n,), falling. Between whole timesteps the ratio sigma / alpha is interpolated.

    Args:
        stride: each step leads so many timesteps down; None: to the next of `timesteps`.
        ends_clean: the last step leads to the clean latent; otherwise to the level of timestep 0.
        smallest_alpha: replaces smaller alphas, for samplers that divide by alpha.
    """
    trained = schedule.noise_to_signal(smallest_alpha)
    ratios = np.interp(timesteps, np.arange(len(trained)), trained)
    end = 0.0 if ends_clean else trained[0]
    if stride is None:
        next_ratios = np.append(ratios[1:], end)
    else:
        targets = timesteps.astype(np.int64) - stride
        next_ratios = np.where(targets >= 0, trained[targets], end)
    alphas, sigmas = _split(ratios)
    next_alphas, next_sigmas = _split(next_ratios)
    return NoiseLevels(alphas, sigmas, next_alphas, next_sigmas, schedule.prediction_type)


def _split(ratios: Floats) -> tuple[Floats, Floats]:
    """Alphas and sigmas with `sigma / alpha = ratio` and `alpha**2 + sigma**2 = 1`."""
    alphas = 1 / np.sqrt(1 + ratios**2)
    finite = np.where(np.isinf(ratios), 0.0, ratios)
    return alphas, np.where(np.isinf(ratios), 1.0, finite * alphas)
