"""The diffusion loss: predicted noise, and the learned variance range of Improved DDPM.

Shapes: B batch, T frames, C latent channels, H W height and width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.sampling.schedule import NoiseSchedule

MAX_WEIGHT = 5000.0


@dataclass(frozen=True)
class Terms:
    """The numbers of the schedule for the loss at each training timestep, (steps,) float32 each."""

    signal: Tensor  # sqrt(alpha_bar)
    noise: Tensor  # sqrt(1 - alpha_bar)
    clean_weight: Tensor  # of x_0 in the mean of q(x_{t-1} | x_t, x_0)
    latent_weight: Tensor  # of x_t in it
    min_log_variance: Tensor  # of that posterior
    max_log_variance: Tensor  # of beta

    def at(self, timesteps: Tensor) -> "Terms":
        """The terms of each row, (B, 1, 1, 1, 1)."""
        return Terms(*(value[timesteps].view(-1, 1, 1, 1, 1) for value in vars(self).values()))


def terms_of(schedule: NoiseSchedule, device: torch.device) -> Terms:
    """Ho et al. 2020, equations 4, 6 and 7; the first posterior variance, which is 0, is replaced by the second."""
    alpha_bar = schedule.alphas_cumprod
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    alpha = alpha_bar / previous
    beta = 1 - alpha
    posterior = beta * (1 - previous) / (1 - alpha_bar)
    posterior[0] = posterior[1]
    values = (
        alpha_bar.sqrt(),
        (1 - alpha_bar).sqrt(),
        beta * previous.sqrt() / (1 - alpha_bar),
        (1 - previous) * alpha.sqrt() / (1 - alpha_bar),
        posterior.log(),
        beta.log(),
    )
    return Terms(*(value.float().to(device) for value in values))


def diffusion_losses(
    output: Tensor, clean: Tensor, noise: Tensor, terms: Terms, timesteps: Tensor, is_known: Tensor | None = None
) -> dict[str, Tensor]:
    """The loss of a model's `output` (B, T, 2 C, H, W) on `clean` (B, T, C, H, W) with `noise` added at `timesteps`.

    Frames that `is_known` (B, T) do not count.

    `loss` is the squared error of the noise, weighted, plus the variational bound, in bits, through which only the
    variance learns (Nichol and Dhariwal 2021, section 3.1, with the published weight of one thousandth a step).

    The weight, `1 / signal^2` up to MAX_WEIGHT, makes it the error of the velocity (Salimans and Ho 2022): unweighted,
    the noisy timesteps, at which a prompt decides what a scene of few colours becomes, hardly count.
    """
    predicted, variance = output.float().chunk(2, dim=2)
    at = terms.at(timesteps)
    squared = (predicted - noise).square()
    bounds = _variational_bounds(predicted.detach(), variance, clean, noise, at, timesteps)
    weighted = _mean(squared * (at.signal**-2).clamp(max=MAX_WEIGHT), is_known)
    bound = _mean(bounds, is_known)
    return {"loss": weighted + bound, "noise": _mean(squared, is_known), "velocity": weighted, "bound": bound}


def _mean(values: Tensor, is_known: Tensor | None) -> Tensor:
    if is_known is None:
        return values.mean()
    counts = (~is_known).float()[..., None, None, None]
    return (values * counts).mean() / counts.mean()


def _variational_bounds(
    predicted: Tensor, variance: Tensor, clean: Tensor, noise: Tensor, terms: Terms, timesteps: Tensor
) -> Tensor:
    latent = terms.signal * clean + terms.noise * noise
    predicted_clean = (latent - terms.noise * predicted) / terms.signal
    share = (variance + 1) / 2
    log_variance = share * terms.max_log_variance + (1 - share) * terms.min_log_variance
    mean = terms.clean_weight * predicted_clean + terms.latent_weight * latent
    true_mean = terms.clean_weight * clean + terms.latent_weight * latent
    divergence = 0.5 * (
        log_variance
        - terms.min_log_variance
        - 1
        + (terms.min_log_variance - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = 0.5 * (math.log(2 * math.pi) + log_variance + (clean - mean).square() * (-log_variance).exp())
    first = (timesteps == 0).view(-1, 1, 1, 1, 1)
    return torch.where(first, likelihood, divergence) / math.log(2)
