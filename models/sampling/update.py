"""One update for a whole batch in which every row has its own sampler, number of steps and step index.

B rows, T frames, C H W latent. The state is `(B, 4, T, C, H, W)` float32 as `models.sampling.table` lays it out: rows
join by `torch.cat` of what `start_state` returns and leave by indexing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.sampling.table import LATENT, NUM_STATES, SamplerTable


@dataclass(frozen=True)
class StepCoefficients:
    """One step's row of each request's table, gathered into a batch."""

    timesteps: torch.Tensor  # (B,) float32
    weights: torch.Tensor  # (B, 4, 6)
    log_variances: torch.Tensor  # (B, 2)

    def to(self, device: torch.device | str) -> "StepCoefficients":
        return StepCoefficients(
            timesteps=self.timesteps.to(device),
            weights=self.weights.to(device),
            log_variances=self.log_variances.to(device),
        )


def gather(tables: Sequence[SamplerTable], steps: Sequence[int]) -> StepCoefficients:
    """The coefficients of row b at `steps[b]` (from 0) of `tables[b]`, on the CPU."""
    rows = list(zip(tables, steps, strict=True))
    return StepCoefficients(
        timesteps=torch.stack([table.timesteps[step] for table, step in rows]),
        weights=torch.stack([table.weights[step] for table, step in rows]),
        log_variances=torch.stack([table.log_variances[step] for table, step in rows]),
    )


def start_state(table: SamplerTable, noise: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T, C, H, W) start noise -> (B, 4, T, C, H, W), a state with nothing remembered yet.

    With clean latents `source`, of the same shape, it starts from those, at the noise level of the first step.
    """
    state = noise.new_zeros((noise.shape[0], NUM_STATES, *noise.shape[1:]))
    alpha, sigma = table.start_levels
    state[:, LATENT] = noise * table.start_scale if source is None else alpha * source + sigma * noise
    return state


def update(
    state: torch.Tensor,
    model_output: torch.Tensor,
    variance: torch.Tensor | None,
    fresh_noise: torch.Tensor,
    coefficients: StepCoefficients,
) -> torch.Tensor:
    """The next state (B, 4, T, C, H, W).

    `model_output`, `variance` and `fresh_noise` are (B, T, C, H, W) float32. The first two are the halves of the guided
    output; `variance` is None for a model that does not learn it. Rows that draw no noise at this step
    (`SamplerTable.draws_noise`) take any finite `fresh_noise`: its weight is zero.
    """
    scaled_noise = fresh_noise * _noise_scale(variance, coefficients.log_variances)
    inputs = (*state.unbind(1), model_output, scaled_noise)
    weights = coefficients.weights[..., None, None, None, None].unbind(2)
    # Products and sums one by one, not a matrix product: its kernels round differently for different batch sizes, and
    # a request must give the same video in every batch.
    result = weights[0] * inputs[0][:, None]
    for weight, tensor in zip(weights[1:], inputs[1:], strict=True):
        result = result + weight * tensor[:, None]
    return result


def _noise_scale(variance: torch.Tensor | None, log_variances: torch.Tensor) -> torch.Tensor:
    """Standard deviation (B, T, C, H, W) or (B, 1, 1, 1, 1); Nichol & Dhariwal 2021, equation 15.

    A model without variance channels gets the larger bound (beta), as its published process does.
    """
    smallest, largest = log_variances[..., None, None, None, None].unbind(1)
    if variance is None:
        return torch.exp(0.5 * largest)
    return torch.exp(0.5 * (smallest + (variance + 1) / 2 * (largest - smallest)))
