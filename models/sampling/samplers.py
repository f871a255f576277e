"""The samplers, each as a row of data: where it steps, what a step computes, how much noise it adds.

In the step functions every symbol is a row vector over the six inputs of a step (`models.sampling.table`), so a formula
reads as in its paper and yields the coefficients themselves.

| sampler       | equals |
|---|---|
| `ddim_spaced` | DDIM (eta 0) on the spaced process that the class-conditional models are published with |
| `ddpm_spaced` | ancestral sampling on that process, variance in the learned range |
| `ddim`        | diffusers' `DDIMScheduler`: "leading" spacing, offset 0, eta 0, final alpha 1; for the text family |
| `ddpm`        | diffusers' `DDPMScheduler`: "leading" spacing, variance `fixed_small` |
| `euler`       | diffusers' `EulerDiscreteScheduler`: "linspace" spacing, linear interpolation |
| `dpmpp_2m`    | diffusers' `DPMSolverMultistepScheduler`: DPM-Solver++, order 2, midpoint, "linspace" spacing |
| `unipc`       | diffusers' `UniPCMultistepScheduler`: order 2, bh2, data prediction, "linspace" spacing |

All of them with epsilon prediction and linear betas, no clipping or thresholding of the predicted clean latent, and a
final noise level of zero. A single step of `euler` or of a "leading" or spaced sampler visits timestep 0 alone, as its
original does; few-step requests want `dpmpp_2m` or `unipc`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from models.sampling.schedule import Floats, NoiseLevels, NoiseSchedule, noise_levels
from models.sampling.spacing import evenly_spread, leading, linspace, linspace_above_zero
from models.sampling.table import (
    CORRECTED,
    EARLIER,
    FRESH_NOISE,
    LATENT,
    NUM_INPUTS,
    NUM_STATES,
    PREDICTED_NOISE,
    PREDICTION,
    SamplerTable,
)

_INPUTS: Floats = np.eye(NUM_INPUTS)


def _clean_prediction(levels: NoiseLevels, i: int) -> Floats:
    clean: Floats = (_INPUTS[LATENT] - levels.sigmas[i] * _INPUTS[PREDICTED_NOISE]) / levels.alphas[i]
    return clean


def _step(latent: Floats, prediction: Floats, corrected: Floats | None = None) -> Floats:
    """The (4, 6) matrix of one step; predictions move up by one place."""
    rows = np.zeros((NUM_STATES, NUM_INPUTS))
    rows[LATENT] = latent
    rows[PREDICTION] = prediction
    rows[EARLIER] = _INPUTS[PREDICTION]
    if corrected is not None:
        rows[CORRECTED] = corrected
    return rows


def _ddim(levels: NoiseLevels, i: int) -> Floats:
    """Song et al. 2021 (DDIM), equation 12 with eta 0.

    Euler's method on the probability-flow ODE in the variable latent / alpha (Karras et al. 2022) is the same step.
    """
    clean = _clean_prediction(levels, i)
    return _step(levels.alphas[i + 1] * clean + levels.sigmas[i + 1] * _INPUTS[PREDICTED_NOISE], clean)


def _ddpm(levels: NoiseLevels, i: int) -> Floats:
    """Ho et al. 2020 (DDPM), equation 7, between any two levels; the last step adds no noise."""
    clean = _clean_prediction(levels, i)
    alpha, alpha_next = levels.alphas[i : i + 2]
    variance, variance_next = levels.sigmas[i : i + 2] ** 2
    kept = (alpha / alpha_next) ** 2
    mean = alpha_next * (1 - kept) / variance * clean + np.sqrt(kept) * variance_next / variance * _INPUTS[LATENT]
    return _step(mean + (variance_next > 0) * _INPUTS[FRESH_NOISE], clean)


def _dpmpp_2m(levels: NoiseLevels, i: int) -> Floats:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2; first order at both ends."""
    clean = _clean_prediction(levels, i)
    mixed = clean
    if 0 < i < len(levels.sigmas) - 2:
        before, now, after = levels.log_snrs[i - 1 : i + 2]
        mixed = clean + 0.5 * (after - now) / (now - before) * (clean - _INPUTS[PREDICTION])
    return _step(_exponential_step(levels, i, _INPUTS[LATENT], mixed), clean)


def _unipc(levels: NoiseLevels, i: int) -> Floats:
    """Zhao et al. 2023 (UniPC), data prediction, B(h) = e^h - 1: correct this latent, then predict the next.

    The corrector redoes the step into this level, now that the prediction at this level is known.
    """
    clean = _clean_prediction(levels, i)
    corrected = _INPUTS[LATENT] if i == 0 else _unipc_corrected(levels, i, clean)
    mixed = clean
    if 0 < i < len(levels.sigmas) - 2:
        before, now, after = levels.log_snrs[i - 1 : i + 2]
        mixed = clean + 0.5 * (after - now) / (before - now) * (_INPUTS[PREDICTION] - clean)
    return _step(_exponential_step(levels, i, corrected, mixed), clean, corrected)


def _unipc_corrected(levels: NoiseLevels, i: int, clean: Floats) -> Floats:
    """UniC of the order that the last predictor had: 1 after the first step, else 2 (equation 5 and appendix)."""
    last, earlier = _INPUTS[PREDICTION], _INPUTS[EARLIER]
    if i == 1:
        mixed = last + 0.5 * (clean - last)
        return _exponential_step(levels, i - 1, _INPUTS[CORRECTED], mixed)
    before, start, end = levels.log_snrs[i - 2 : i + 1]
    h = end - start
    ratio = (before - start) / h
    # b_k = k! h phi_{k+1}(h) / B(h) at -h, as data prediction integrates e^-h; rho solves [[1, 1], [ratio, 1]] rho = b.
    phi_1 = np.expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / phi_1, 2 * phi_3 / phi_1
    rho_earlier = (b_1 - b_2) / (1 - ratio)
    rho_now = b_1 - rho_earlier
    mixed = last + rho_earlier / ratio * (earlier - last) + rho_now * (clean - last)
    return _exponential_step(levels, i - 1, _INPUTS[CORRECTED], mixed)


def _exponential_step(levels: NoiseLevels, i: int, latent: Floats, clean: Floats) -> Floats:
    """From level i to i + 1, exact were the clean prediction constant on the way (DPM-Solver++, equation 9)."""
    h = levels.log_snrs[i + 1] - levels.log_snrs[i]
    after: Floats = levels.sigmas[i + 1] / levels.sigmas[i] * latent - levels.alphas[i + 1] * np.expm1(-h) * clean
    return after


def _posterior_log_variances(levels: NoiseLevels) -> Floats:
    """(n, 2): the smaller bound on the reverse variance twice, so the model's variance channels change nothing."""
    return np.repeat(_learned_log_variances(levels)[:, :1], 2, axis=1)


def _learned_log_variances(levels: NoiseLevels) -> Floats:
    """(n, 2): both bounds on the reverse variance (Nichol & Dhariwal 2021, equation 15); 0 where no noise is added."""
    variances = levels.sigmas**2
    betas = 1 - (levels.alphas[:-1] / levels.alphas[1:]) ** 2
    posterior = variances[1:] / variances[:-1] * betas
    return np.log(np.where(posterior[:, None] > 0, np.stack([posterior, betas], axis=1), 1.0))


@dataclass(frozen=True)
class _Sampler:
    spacing: Callable[[int, int], Floats]
    step: Callable[[NoiseLevels, int], Floats]
    log_variances: Callable[[NoiseLevels], Floats] | None = None
    scales_start: bool = False  # starts from sigma * noise, not from noise


_SAMPLERS = {
    "ddim_spaced": _Sampler(evenly_spread, _ddim),
    "ddpm_spaced": _Sampler(evenly_spread, _ddpm, _learned_log_variances),
    "ddim": _Sampler(leading, _ddim),
    "ddpm": _Sampler(leading, _ddpm, _posterior_log_variances),
    "euler": _Sampler(linspace, _ddim, scales_start=True),
    "dpmpp_2m": _Sampler(linspace_above_zero, _dpmpp_2m),
    "unipc": _Sampler(linspace_above_zero, _unipc),
}
SAMPLERS: tuple[str, ...] = tuple(_SAMPLERS)


@lru_cache(maxsize=256)
def build_table(sampler: str, num_steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """The table of `sampler` (one of `SAMPLERS`) with `num_steps` steps, computed in float64 and kept in float32.

    Raises ValueError for an unknown sampler, and for steps below 1 or above the schedule's trained timesteps.
    """
    if sampler not in _SAMPLERS:
        raise ValueError(f"got the sampler {sampler!r}: known are {', '.join(SAMPLERS)}")
    if not 1 <= num_steps <= schedule.num_train_timesteps:
        raise ValueError(f"got {num_steps} inference steps: allowed are 1 to {schedule.num_train_timesteps}")
    parts = _SAMPLERS[sampler]
    timesteps = parts.spacing(num_steps, schedule.num_train_timesteps)
    levels = noise_levels(schedule, timesteps)
    weights = np.stack([parts.step(levels, i) for i in range(num_steps)])
    log_variances = parts.log_variances(levels) if parts.log_variances else np.zeros((num_steps, 2))
    return SamplerTable(
        sampler=sampler,
        timesteps=_float32(timesteps),
        weights=_float32(weights),
        log_variances=_float32(log_variances),
        draws_noise=tuple(bool(drawn) for drawn in weights[:, LATENT, FRESH_NOISE] != 0),
        start_scale=float(levels.sigmas[0]) if parts.scales_start else 1.0,
    )


def _float32(values: Floats) -> torch.Tensor:
    return torch.from_numpy(values.copy()).to(torch.float32)
