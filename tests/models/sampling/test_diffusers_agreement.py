"""Whole trajectories against diffusers' schedulers, with a smooth stand-in for the model and shared noise."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.table import LATENT
from models.sampling.update import gather, start_state, update

# diffusers turns tensors into arrays in a way that NumPy 2 frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LINEAR_BETAS = {"beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear", "num_train_timesteps": 1000}
SCHEDULERS: dict[str, Any] = {
    "ddim": lambda: DDIMScheduler(**LINEAR_BETAS, clip_sample=False),
    "ddpm": lambda: DDPMScheduler(**LINEAR_BETAS, clip_sample=False),
    "euler": lambda: EulerDiscreteScheduler(**LINEAR_BETAS),
    "dpmpp_2m": lambda: DPMSolverMultistepScheduler(**LINEAR_BETAS),
    "unipc": lambda: UniPCMultistepScheduler(**LINEAR_BETAS),
}
SCHEDULE = NoiseSchedule()
SHAPE = (1, 2, 4, 6, 6)
SEED = 3
OFFSET = torch.linspace(-1, 1, 6)  # so that even a single step ends far from zero, where a relative error means much


def predict_noise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """A denoiser in the shape of the ideal one for data near -1 and 1: it bends differently at every noise level."""
    alpha_squared = SCHEDULE.alphas_cumprod[timestep.round().long()].float().reshape(-1, 1, 1, 1, 1)
    alpha, variance = alpha_squared.sqrt(), 1 - alpha_squared
    neighbours = 0.8 * latents + 0.2 * latents.roll(1, -1)
    clean = torch.tanh(alpha * neighbours / (variance + 0.25) + OFFSET)
    return (latents - alpha * clean) / variance.sqrt()


def theirs(name: str, num_steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(num_steps)
    latents = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    extra = {"generator": generator} if name == "ddpm" else {}
    for timestep in scheduler.timesteps:
        noise = predict_noise(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(noise, timestep, latents, **extra).prev_sample
    return latents


def ours(name: str, num_steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    table = build_table(name, num_steps, SCHEDULE)
    state = start_state(table, torch.randn(SHAPE, generator=generator))
    for step in range(num_steps):
        coefficients = gather([table], [step])
        noise = predict_noise(state[:, LATENT], coefficients.timesteps)
        fresh = torch.randn(SHAPE, generator=generator) if table.draws_noise[step] else torch.zeros(SHAPE)
        state = update(state, noise, None, fresh, coefficients)
    return state[:, LATENT]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 10, 20, 50, 250])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_trajectory_agrees_with_diffusers(name: str, num_steps: int) -> None:
    expected = theirs(name, num_steps)
    assert torch.linalg.vector_norm(ours(name, num_steps) - expected) < 1e-4 * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize("num_steps", [1, 7, 50, 999])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_timesteps_are_those_of_diffusers(name: str, num_steps: int) -> None:
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(build_table(name, num_steps, SCHEDULE).timesteps, scheduler.timesteps.float())
