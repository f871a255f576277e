"""Videos of a packaged design: the same prompts and seeds for each, many videos at a time.

Shape legend: N videos, B rows, T frames, C latent channels, h latent side, S pixels a side.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint.load import Checkpoint, load_checkpoint
from models.conditioning import Condition
from models.generate import start_noise
from models.sampling.guidance import guide
from models.sampling.samplers import build_table
from models.sampling.update import gather, start_state, update
from training.designs.designs import NUM_FRAMES
from training.designs.package import GUIDANCE_SCALE, NUM_STEPS, PIXELS, SAMPLER
from training.world.fast.prompts import canonical
from training.world.fast.scenes import FastScenes, draw_fast_scenes

EVALUATION_SEED = 20_000_000  # no training video has it
FRAMES_PER_CHUNK = 256
Frames = NDArray[np.uint8]


def evaluation_scenes(num_videos: int) -> FastScenes:
    """The scenes whose prompts every design is asked for. Their own paths are not used: a prompt leaves them open."""
    return draw_fast_scenes(num_videos, EVALUATION_SEED)


@torch.no_grad()
def generate_latents(
    folder: Path, scenes: FastScenes, device: torch.device, batch: int = 100, num_steps: int = NUM_STEPS
) -> Tensor:
    """Latents (N, T, C, h, h) float32 on the CPU, at the defaults of the card; video i has the seed i."""
    checkpoint = load_checkpoint(folder, device)
    prompts = [canonical(scene) for scene in scenes.words()]
    parts = [
        _denoise(checkpoint, prompts[start : start + batch], start, num_steps, device)
        for start in range(0, len(prompts), batch)
    ]
    return torch.cat(parts)


def _denoise(checkpoint: Checkpoint, prompts: list[str], first_seed: int, steps: int, device: torch.device) -> Tensor:
    """As `models.generate.denoise` does for one video."""
    count, channels = len(prompts), checkpoint.config.latent_channels
    conditions = [checkpoint.condition(prompt) for prompt in prompts]
    negatives = [checkpoint.negative("", condition) for condition in conditions]
    both = Condition.concat([*conditions, *negatives]).to(device, torch.float32)
    noise = torch.cat([start_noise(checkpoint.config, NUM_FRAMES, first_seed + i) for i in range(count)])
    table = build_table(SAMPLER, steps, checkpoint.schedule)
    state = start_state(table, noise.to(device))
    rows = torch.arange(count, device=device)
    scales = torch.full((count,), GUIDANCE_SCALE, device=device)
    for step in range(table.num_steps):
        coefficients = gather([table] * count, [step] * count).to(device)
        outputs = checkpoint.transformer(state[:, 0].repeat(2, 1, 1, 1, 1), coefficients.timesteps.repeat(2), both)
        predicted, variance = guide(outputs, rows, rows + count, scales, channels)
        state = update(state, predicted, variance, torch.zeros_like(predicted), coefficients)
    return state[:, 0].cpu()


def decode_latents(folder: Path, latents: Tensor, device: torch.device) -> Frames:
    """Frames (N, T, S, S, 3) of uint8 RGB. The VAE decodes each frame alone, so many are decoded at once."""
    vae = load_checkpoint(folder, device).vae
    vae.frames_per_chunk = FRAMES_PER_CHUNK
    frames: Frames = vae.decode(latents.flatten(0, 1)[None]).numpy().reshape(*latents.shape[:2], PIXELS, PIXELS, 3)
    return frames
