"""The VAE: a small autoencoder (factor 8, 4 latent channels) trained on frames of the world.

Shape legend: B frames, S pixels a side, C latent channels, h = S / 8 latent side.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.vae import save_vae
from training.loop import LoopSettings, autocast, pick_device, train
from training.world.renderer import render_at
from training.world.scenes import Split, draw_scenes

KL_WEIGHT = 1e-4
# An edge pixel counts this many times more than one of a flat area, which is most of every frame.
EDGE_WEIGHT = 4.0


FramesOf = Callable[[int, int, torch.device], Tensor]  # (frames, seed, device) -> (B, 3, S, S) in [-1, 1]


def new_vae(channels: tuple[int, int, int, int] = (32, 64, 64, 64), latent_channels: int = 4) -> Autoencoder:
    return Autoencoder(
        AutoencoderConfig(
            block_out_channels=channels,
            layers_per_block=1,
            latent_channels=latent_channels,
            norm_num_groups=8,
            sample_size=64,
            mid_block_add_attention=False,
            scaling_factor=1.0,
        )
    )


def random_frames(num_frames: int, seed: int, device: torch.device, split: Split = Split.TRAINING) -> Tensor:
    """One frame (B, 3, S, S) of each of B random scenes, at a random time."""
    scenes = draw_scenes(num_frames, seed, split).to(device)
    times = torch.rand(num_frames, 1, generator=torch.Generator().manual_seed(seed + 1))
    return render_at(scenes, times.to(device))[:, 0]


def any_frames(num_frames: int, seed: int, device: torch.device) -> Tensor:
    """The same of held-out combinations too, to measure with."""
    return random_frames(num_frames, seed, device, Split.ALL)


def pretrain(vae: Autoencoder, settings: LoopSettings, batch: int, frames_of: FramesOf = random_frames) -> None:
    device = vae.device

    def loss_of_step(step: int) -> dict[str, Tensor]:
        frames = frames_of(batch, 1_000_000 + 2 * step, device)
        with autocast(device):
            posterior = vae.encode(frames)
            decoded = vae.decode(posterior.sample())
        error = (decoded.float() - frames).abs().mean(dim=1)
        reconstruction = (error * edge_weights(frames)).mean()
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return {"loss": reconstruction + KL_WEIGHT * kl, "reconstruction": reconstruction, "kl": kl}

    vae.train()
    train(settings, vae, loss_of_step)
    vae.eval()


def edge_weights(frames: Tensor) -> Tensor:
    """1 in flat areas up to 1 + EDGE_WEIGHT near strong edges: (B, 3, S, S) -> (B, S, S)."""
    spread = F.max_pool2d(frames, 3, 1, 1) + F.max_pool2d(-frames, 3, 1, 1)
    return 1 + EDGE_WEIGHT * spread.mean(dim=1).clamp(max=1)


@torch.no_grad()
def normalise_latents(
    vae: Autoencoder, num_frames: int = 4096, batch: int = 256, frames_of: FramesOf = random_frames
) -> None:
    """Fold each latent channel's mean and spread into the 1x1 convolutions beside the latents, so that latents are
    zero-mean and unit-variance by channel, then write the `scaling_factor` (1 but for rounding)."""
    latents = _latents_of(vae, num_frames, batch, frames_of)
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    assert vae.quant_conv is not None
    assert vae.post_quant_conv is not None
    _fold(vae.quant_conv, vae.post_quant_conv, mean, std)
    scale = 1 / _latents_of(vae, num_frames, batch, frames_of).std().item()
    vae.config = replace(vae.config, scaling_factor=round(scale, 5))


def _fold(quantize: nn.Conv2d, dequantize: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
    assert quantize.bias is not None
    assert dequantize.bias is not None
    channels = len(mean)
    # The first C outputs are the means, the other C the log variances.
    quantize.weight[:channels] /= std[:, None, None, None]
    quantize.bias[:channels] = (quantize.bias[:channels] - mean) / std
    quantize.bias[channels:] -= 2 * std.log()
    dequantize.bias += torch.einsum("oc,c->o", dequantize.weight[:, :, 0, 0], mean)
    dequantize.weight *= std[:, None, None]


@torch.no_grad()
def _latents_of(vae: Autoencoder, num_frames: int, batch: int, frames_of: FramesOf) -> Tensor:
    batch = min(batch, num_frames)
    batches = (frames_of(batch, 5000 + 2 * index, vae.device) for index in range(num_frames // batch))
    return torch.cat([vae.encode(frames).sample() for frames in batches])


@torch.no_grad()
def measure(
    vae: Autoencoder, num_frames: int = 1024, batch: int = 128, frames_of: FramesOf = any_frames
) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of reconstructed frames, mean and worst frame."""
    ratios = []
    batch = min(batch, num_frames)
    for index in tqdm(range(num_frames // batch), desc="measuring", leave=False):
        frames = frames_of(batch, 9000 + 2 * index, vae.device)
        decoded = vae.decode(vae.encode(frames).mean).clamp(-1, 1)
        squared = ((decoded - frames) / 2).square().mean(dim=(1, 2, 3))
        ratios.append(-10 * squared.log10())
    psnr = torch.cat(ratios)
    return {"psnr_mean": psnr.mean().item(), "psnr_worst": psnr.min().item()}


def run(
    out: Path, device: torch.device, steps: int, batch: int, half: bool = False, num_measured: int = 1024
) -> dict[str, float]:
    """Train, normalise the latents, save `vae/` in `out` (diffusers layout), and return the measures."""
    torch.manual_seed(0)
    vae = new_vae().to(device)
    pretrain(vae, LoopSettings(out, steps, learning_rate=1e-3), batch)
    normalise_latents(vae, 4 * num_measured)
    report = measure(vae, num_measured) | {"scaling_factor": vae.config.scaling_factor}
    report["parameters"] = sum(parameter.numel() for parameter in vae.parameters())
    save_vae(vae.to(torch.float16 if half else torch.float32), out / "vae")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/training/vae"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--half", action="store_true", help="save in half precision")
    options = parser.parse_args(arguments)
    report = run(options.out, pick_device(options.device), options.steps, options.batch, options.half)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
