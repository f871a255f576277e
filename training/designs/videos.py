"""The data of the four designs: a VAE for the fast world's frames, encoded videos and their prompts.

Shape legend: N videos, T frames, C latent channels, h latent side, L text tokens.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from models.autoencoder.autoencoder import Autoencoder
from models.checkpoint.text_encoder import load_encoder
from models.checkpoint.tokenizer import load_tokenizer
from models.checkpoint.vae import save_vae
from training.designs.designs import LATENT_CHANNELS, NUM_FRAMES
from training.loop import LoopSettings, autocast
from training.stages.conditions import ConditionOf, PromptPool, text_conditions
from training.stages.tokenizer import MAX_TOKENS
from training.stages.vae import measure, new_vae, normalise_latents, pretrain
from training.world.fast.prompts import describe
from training.world.fast.renderer import render_fast, render_fast_at
from training.world.fast.scenes import FastScenes, draw_fast_scenes

VAE_CHANNELS = (24, 32, 48, 64)
_SEED_STRIDE = 1_000_003
_BATCH = 64


@dataclass(frozen=True)
class FastVideos:
    """`latents` (N, T, C, h, h) float16, scaled as the models see them, of `scenes`."""

    latents: Tensor
    scenes: FastScenes

    def __len__(self) -> int:
        return len(self.latents)


def fast_frames(num_frames: int, seed: int, device: torch.device) -> Tensor:
    """One frame (B, 3, S, S) of each of B random scenes, at a random time."""
    scenes = draw_fast_scenes(num_frames, seed).to(device)
    times = torch.rand(num_frames, 1, generator=torch.Generator().manual_seed(seed + 1)) * NUM_FRAMES
    return render_fast_at(scenes, times.to(device))[:, 0]


def train_vae(out: Path, device: torch.device, steps: int, batch: int, num_measured: int) -> dict[str, float]:
    """Train the VAE, save it as `out/vae` in half precision, and return its PSNR."""
    torch.manual_seed(0)
    vae = new_vae(VAE_CHANNELS, LATENT_CHANNELS).to(device)
    pretrain(vae, LoopSettings(out, steps, learning_rate=2e-3), batch, fast_frames)
    normalise_latents(vae, 4 * num_measured, frames_of=fast_frames)
    report = measure(vae, num_measured, frames_of=fast_frames)
    save_vae(vae.to(torch.float16), out / "vae")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


@torch.no_grad()
def encode_videos(vae: Autoencoder, num_videos: int, seed: int) -> FastVideos:
    """Render and encode random scenes on the VAE's device, where the result stays. Latents are posterior means."""
    latents, drawn = [], []
    for start in tqdm(range(0, num_videos, _BATCH), desc="encoding", unit="batch", mininterval=5):
        scenes = draw_fast_scenes(min(_BATCH, num_videos - start), seed * _SEED_STRIDE + start).to(vae.device)
        with autocast(vae.device):
            encoded = vae.encode(render_fast(scenes, NUM_FRAMES).flatten(0, 1)).mean
        latents.append((encoded * vae.config.scaling_factor).half().reshape(-1, NUM_FRAMES, *encoded.shape[1:]))
        drawn.append(scenes)
    scenes = FastScenes(torch.cat([s.attributes for s in drawn]), torch.cat([s.paths for s in drawn]))
    return FastVideos(torch.cat(latents), scenes)


def prompt_conditions(videos: FastVideos, text: Path, wordings: int, seed: int = 0) -> ConditionOf:
    """One of `wordings` prompts of each video, encoded on the device of the videos by the encoder in `text`."""
    device = videos.latents.device
    tokenizer = load_tokenizer(text / "tokenizer")
    encoder = load_encoder(text / "text_encoder", torch.float32).to(device)
    rng = random.Random(seed)
    texts = [describe(scene, rng).text for scene in videos.scenes.words() for _ in range(wordings)]
    tokens, mask = tokenizer.encode(texts, MAX_TOKENS, pad_to_max=True)
    lengths, longest = mask.sum(dim=1), int(mask.sum(dim=1).max())
    empty = tokenizer.encode([""], longest, pad_to_max=True)[0][0]
    tokens, lengths, empty = (each.to(torch.int16) for each in (tokens, lengths, empty))
    pool = PromptPool(tokens[:, :longest].reshape(-1, wordings, longest), lengths.view(-1, wordings), empty)
    return text_conditions(pool.to(device), encoder)
