"""Whole trajectories against diffusers' schedulers, with a smooth stand-in for the model and shared noise."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from models.sampling.samplers import build_table
from models.sampling.schedule import BetaSchedule, NoiseSchedule, PredictionType, Spacing, VarianceType
from models.sampling.table import LATENT
from models.sampling.update import gather, start_state, update

# diffusers turns tensors into arrays in a way that NumPy 2 warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context"),
]

SCHEDULERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "deis": DEISMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
NEVER_CLIPPED = {"clip_sample": False}
SHAPE = (1, 2, 4, 6, 6)
SEED = 3
OFFSET = torch.linspace(-1, 1, 6)  # so that even a single step ends far from zero, where a relative error means much

# Fields of a schedule, and the samplers that have them in diffusers.
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"timestep_spacing": Spacing.LEADING}, "ddim ddpm euler euler_ancestral dpmpp_2m deis unipc"),
    ({"timestep_spacing": Spacing.LINSPACE}, "ddim ddpm euler euler_ancestral dpmpp_2m deis unipc"),
    ({"timestep_spacing": Spacing.TRAILING}, "ddim ddpm euler euler_ancestral dpmpp_2m deis unipc"),
    (
        {"timestep_spacing": Spacing.LEADING, "steps_offset": 1},
        "ddim ddpm euler euler_ancestral dpmpp_2m deis unipc",
    ),
    ({"set_alpha_to_one": False}, "ddim"),
    ({"beta_schedule": BetaSchedule.SCALED_LINEAR}, "ddim ddpm euler euler_ancestral dpmpp_2m deis unipc"),
    ({"prediction_type": PredictionType.VELOCITY}, "ddim ddpm euler euler_ancestral dpmpp_2m deis unipc"),
    ({"prediction_type": PredictionType.CLEAN}, "ddim ddpm dpmpp_2m deis unipc"),
    ({"variance_type": VarianceType.LARGE}, "ddpm"),
    (
        {
            "rescale_betas_zero_snr": True,
            "timestep_spacing": Spacing.TRAILING,
            "prediction_type": PredictionType.VELOCITY,
        },
        "ddim ddpm euler euler_ancestral dpmpp_2m unipc",
    ),
    ({"rescale_betas_zero_snr": True, "timestep_spacing": Spacing.LEADING}, "ddim ddpm euler euler_ancestral"),
]
CASES = [(name, settings) for settings, names in SETTINGS for name in names.split()]


def predict(schedule: NoiseSchedule, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """A denoiser in the shape of the ideal one for data near -1 and 1: it bends differently at every noise level."""
    alpha_squared = schedule.alphas_cumprod[timestep.round().long()].float().reshape(-1, 1, 1, 1, 1)
    alpha, sigma = alpha_squared.sqrt(), (1 - alpha_squared).sqrt()
    neighbours = 0.8 * latents + 0.2 * latents.roll(1, -1)
    clean = torch.tanh(alpha * neighbours / (1 - alpha_squared + 0.25) + OFFSET)
    noise = (latents - alpha * clean) / sigma
    outputs = {
        PredictionType.NOISE: noise,
        PredictionType.CLEAN: clean,
        PredictionType.VELOCITY: alpha * noise - sigma * clean,
    }
    return outputs[schedule.prediction_type]


def make_scheduler(name: str, settings: dict[str, Any]) -> Any:
    scheduler = SCHEDULERS[name]
    values = {key: str(value) if isinstance(value, str) else value for key, value in settings.items()}
    return scheduler(beta_start=1e-4, beta_end=2e-2, **values, **(NEVER_CLIPPED if name in ("ddim", "ddpm") else {}))


def theirs(name: str, num_steps: int, settings: dict[str, Any]) -> torch.Tensor:
    schedule = NoiseSchedule(**settings)
    generator = torch.Generator().manual_seed(SEED)
    scheduler = make_scheduler(name, settings)
    scheduler.set_timesteps(num_steps)
    latents = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    extra = {"generator": generator} if name in ("ddpm", "euler_ancestral") else {}
    for timestep in scheduler.timesteps:
        output = predict(schedule, scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(output, timestep, latents, **extra).prev_sample
    return latents


def ours(name: str, num_steps: int, settings: dict[str, Any]) -> torch.Tensor:
    schedule = NoiseSchedule(**settings)
    generator = torch.Generator().manual_seed(SEED)
    table = build_table(name, num_steps, schedule)
    state = start_state(table, torch.randn(SHAPE, generator=generator))
    for step in range(num_steps):
        coefficients = gather([table], [step])
        output = predict(schedule, state[:, LATENT], coefficients.timesteps)
        fresh = torch.randn(SHAPE, generator=generator) if table.draws_noise[step] else torch.zeros(SHAPE)
        state = update(state, output, None, fresh, coefficients)
    return state[:, LATENT]


def assert_agrees(name: str, num_steps: int, settings: dict[str, Any]) -> None:
    expected = theirs(name, num_steps, settings)
    error = torch.linalg.vector_norm(ours(name, num_steps, settings) - expected)
    # diffusers integrates DEIS in float32: with many steps, over differences of almost equal logarithms.
    tolerance = 5e-4 if name == "deis" else 1e-4
    assert error < tolerance * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 10, 20, 50, 250])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_trajectory_agrees_with_diffusers(name: str, num_steps: int) -> None:
    assert_agrees(name, num_steps, {})


@pytest.mark.parametrize("num_steps", [2, 7, 20, 50])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_setting_of_a_schedule_gives_the_trajectory_of_diffusers(
    name: str, settings: dict[str, Any], num_steps: int
) -> None:
    assert_agrees(name, num_steps, settings)


@pytest.mark.parametrize("num_steps", [1, 7, 50, 999])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_timesteps_are_those_of_diffusers(name: str, num_steps: int) -> None:
    scheduler = make_scheduler(name, {})
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(build_table(name, num_steps, NoiseSchedule()).timesteps, scheduler.timesteps.float())


@pytest.mark.parametrize("num_steps", [3, 7, 30, 333])
@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("name", SCHEDULERS)
def test_timesteps_of_every_spacing_are_those_of_diffusers(name: str, spacing: Spacing, num_steps: int) -> None:
    scheduler = make_scheduler(name, {"timestep_spacing": spacing})
    scheduler.set_timesteps(num_steps)
    table = build_table(name, num_steps, NoiseSchedule(timestep_spacing=spacing))
    torch.testing.assert_close(table.timesteps, scheduler.timesteps.float())
