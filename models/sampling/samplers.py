"""The samplers, each as a row of data: the timesteps it visits, what a step computes, how much noise it adds.

| sampler           | equals |
|---|---|
| `ddim_spaced`     | DDIM (eta 0) on the spaced process that the class-conditional models are published with |
| `ddpm_spaced`     | ancestral sampling on that process, variance in the learned range |
| `ddim`            | diffusers' `DDIMScheduler`: "leading" spacing, eta 0; for the text family |
| `ddpm`            | diffusers' `DDPMScheduler`: "leading" spacing, variance `fixed_small` |
| `euler`           | diffusers' `EulerDiscreteScheduler`: "linspace" spacing, linear interpolation |
| `euler_ancestral` | diffusers' `EulerAncestralDiscreteScheduler`: "linspace" spacing |
| `dpmpp_2m`        | diffusers' `DPMSolverMultistepScheduler`: DPM-Solver++, order 2, midpoint, "linspace" spacing |
| `deis`            | diffusers' `DEISMultistepScheduler`: order 2, log-rho, "linspace" spacing |
| `unipc`           | diffusers' `UniPCMultistepScheduler`: order 2, bh2, data prediction, "linspace" spacing |

Spacing and variance are defaults: a checkpoint's schedule may name others. No sampler clips or thresholds the predicted
clean latent, which is not linear. All but `deis` end without noise. A single step of `euler`, or of "leading" or spaced
timesteps, visits timestep 0 alone, as in the original; with few steps, use `dpmpp_2m` or `unipc`.

`PNDM`, `Heun` and `KDPM2Ancestral` of the published text sampling are left out: they run the model more than once a
step, while cost, progress and time estimates count one pass a step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from models.sampling import steps
from models.sampling.schedule import (
    Floats,
    NoiseLevels,
    NoiseSchedule,
    PredictionType,
    Spacing,
    VarianceType,
    noise_levels,
)
from models.sampling.spacing import FRACTIONAL, MULTISTEP, WHOLE, Timesteps, evenly_spread
from models.sampling.table import FRESH_NOISE, LATENT, SamplerTable


@dataclass(frozen=True)
class _Sampler:
    """Attributes:
    timesteps: the timesteps of each spacing.
    default_spacing: used where the schedule names none.
    step: the matrix (4, 6) of step i.
    default_variance: of ancestral samplers; None where a step scales its noise itself or adds none.
    is_strided: each step leads down by a fixed number of timesteps, whichever the next one is.
    scales_start: with "linspace" and "trailing" spacing, starts from sigma * noise and not from noise.
    ends_clean: the last step leads to the clean latent; otherwise to the level of timestep 0.
    smallest_alpha: what diffusers puts in place of an alpha of 0.
    """

    timesteps: dict[Spacing, Timesteps]
    default_spacing: Spacing
    step: Callable[[NoiseLevels, int], Floats]
    default_variance: VarianceType | None = None
    is_strided: bool = False
    scales_start: bool = False
    ends_clean: bool = True
    smallest_alpha: float = 2**-12


_SPACED: dict[Spacing, Timesteps] = dict.fromkeys(Spacing, evenly_spread)
_LEADING, _LINSPACE = Spacing.LEADING, Spacing.LINSPACE

_SAMPLERS = {
    "ddim_spaced": _Sampler(_SPACED, _LEADING, steps.ddim, smallest_alpha=0),
    "ddpm_spaced": _Sampler(_SPACED, _LEADING, steps.ddpm, VarianceType.LEARNED, smallest_alpha=0),
    "ddim": _Sampler(WHOLE, _LEADING, steps.ddim, is_strided=True, smallest_alpha=0),
    "ddpm": _Sampler(WHOLE, _LEADING, steps.ddpm, VarianceType.SMALL, smallest_alpha=0),
    "euler": _Sampler(FRACTIONAL, _LINSPACE, steps.ddim, scales_start=True),
    "euler_ancestral": _Sampler(FRACTIONAL, _LINSPACE, steps.euler_ancestral, scales_start=True),
    "dpmpp_2m": _Sampler(MULTISTEP, _LINSPACE, steps.dpmpp_2m),
    "deis": _Sampler(MULTISTEP, _LINSPACE, steps.deis, ends_clean=False),
    "unipc": _Sampler(MULTISTEP, _LINSPACE, steps.unipc),
}
SAMPLERS: tuple[str, ...] = tuple(_SAMPLERS)


@lru_cache(maxsize=256)
def build_table(sampler: str, num_steps: int, schedule: NoiseSchedule, first_step: int = 0) -> SamplerTable:
    """The table of `sampler` (one of `SAMPLERS`) with `num_steps` steps, computed in float64 and kept in float32.

    With `first_step` the table begins there and has fewer steps; a multistep sampler then begins anew, at first order.

    Raises ValueError for an unknown sampler, for a number of steps that the schedule does not allow, and for a first
    step that is none of them.
    """
    if sampler not in _SAMPLERS:
        raise ValueError(f"got the sampler {sampler!r}: known are {', '.join(SAMPLERS)}")
    if not 1 <= num_steps <= schedule.num_train_timesteps:
        raise ValueError(f"got {num_steps} inference steps: allowed are 1 to {schedule.num_train_timesteps}")
    if not 0 <= first_step < num_steps:
        raise ValueError(f"got the first step {first_step}: with {num_steps} steps, allowed are 0 to {num_steps - 1}")
    parts = _SAMPLERS[sampler]
    spacing = schedule.timestep_spacing or parts.default_spacing
    timesteps = parts.timesteps[spacing](num_steps, schedule.num_train_timesteps, schedule.steps_offset)
    _check_timesteps(sampler, timesteps, schedule)
    timesteps = timesteps[first_step:]
    levels = noise_levels(
        schedule,
        timesteps,
        stride=schedule.num_train_timesteps // num_steps if parts.is_strided else None,
        ends_clean=parts.ends_clean and (schedule.set_alpha_to_one or not parts.is_strided),
        smallest_alpha=parts.smallest_alpha,
    )
    _check_levels(sampler, levels)
    weights = np.stack([parts.step(levels, i) for i in range(len(timesteps))])
    variance_type = parts.default_variance and (schedule.variance_type or parts.default_variance)
    log_variances = steps.log_variances(levels, variance_type) if variance_type else np.zeros((len(timesteps), 2))
    return SamplerTable(
        sampler=sampler,
        timesteps=_float32(timesteps),
        weights=_float32(weights),
        log_variances=_float32(log_variances),
        draws_noise=tuple(bool(drawn) for drawn in weights[:, LATENT, FRESH_NOISE] != 0),
        start_scale=float(levels.sigmas[0]) if parts.scales_start and spacing is not _LEADING else 1.0,
        start_levels=(float(levels.alphas[0]), float(levels.sigmas[0])),
    )


def _check_timesteps(sampler: str, timesteps: Floats, schedule: NoiseSchedule) -> None:
    last = schedule.num_train_timesteps - 1
    if timesteps[0] > last or (np.diff(timesteps) >= 0).any():
        offset = f" and steps_offset {schedule.steps_offset}" if schedule.steps_offset else ""
        raise ValueError(
            f"got {len(timesteps)} inference steps: with {schedule.timestep_spacing} spacing{offset}, {sampler} cannot "
            f"spread them over the {schedule.num_train_timesteps} trained timesteps; use fewer"
        )


def _check_levels(sampler: str, levels: NoiseLevels) -> None:
    if levels.prediction_type is PredictionType.NOISE and levels.alphas[0] == 0:
        raise ValueError(
            f"{sampler} starts at a timestep of pure noise (rescale_betas_zero_snr), where a noise prediction says "
            "nothing of the video: use leading spacing or another sampler"
        )


def _float32(values: Floats) -> torch.Tensor:
    return torch.from_numpy(values.copy()).to(torch.float32)
