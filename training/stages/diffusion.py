"""Diffusion training of a demo model on encoded videos: noise prediction with learned variance, label dropout, EMA."""

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.checkpoint.text_encoder import load_encoder
from models.checkpoint.tokenizer import load_tokenizer
from models.conditioning import Condition
from models.config import Conditioning, Layout, TransformerConfig
from models.sampling.known_frames import KnownFrames
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer, count_parameters
from training.demos import DEMOS
from training.loop import LoopSettings, pick_device, train
from training.stages.conditions import DROPOUT, ConditionOf, class_conditions, make_prompt_pool, text_conditions
from training.stages.initialize import initialize
from training.stages.latents import LatentDataset
from training.stages.losses import diffusion_losses, terms_of

WORDINGS = 3
EMA_DECAY = 0.999
MAX_TOKENS_UNFUSED = 64
# For a model that is given known frames clean: share of the videos, and how many frames are known at the start and at
# the end. An extension knows half of the frames, and an image is the first frame, the last one, or both.
KNOWN_FRAMES = (
    (0.60, 0, 0),
    (0.12, 1, 0),
    (0.02, 2, 0),
    (0.03, 4, 0),
    (0.14, 8, 0),
    (0.03, 12, 0),
    (0.03, 0, 1),
    (0.03, 1, 1),
)


class Float32Linear(nn.Linear):
    """A linear map that stays in float32 under autocast.

    At the noisiest timesteps the noise is nearly the latent itself, and what it says of the clean latent lies in their
    difference: bfloat16 would round that away on the way in and out.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Averaged(nn.Module):
    """The model in training, and the moving average of its weights, which is what is kept."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        for end in (model.patch_embedding, model.output):
            end.__class__ = Float32Linear
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the average towards the weights; in the first steps faster, so that it forgets where it began."""
        share = 1 - min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)


Forward = Callable[[Tensor, Tensor, Condition], Tensor]


def train_diffusion(
    averaged: Averaged,
    forward: Forward,
    dataset: LatentDataset,
    condition_of: ConditionOf,
    settings: LoopSettings,
    batch: int,
) -> None:
    """Train `averaged.model` (through `forward`, which may be a compiled form of it) on `dataset`."""
    device = dataset.latents.device
    schedule = NoiseSchedule()
    terms = terms_of(schedule, device)

    def loss_of_step(step: int) -> dict[str, Tensor]:
        averaged.follow(step)
        torch.manual_seed(step)
        indices = torch.randint(len(dataset), (batch,), device=device)
        timesteps = draw_timesteps(batch, schedule.num_train_timesteps, device)
        clean = dataset.latents[indices].float()
        noise = torch.randn_like(clean)
        at = terms.at(timesteps)
        condition = condition_of(indices, torch.rand(batch, device=device) < DROPOUT)
        latents, is_known = at.signal * clean + at.noise * noise, None
        if averaged.model.config.clean_known_frames:
            is_known = draw_known_frames(dataset.continues[indices], clean.shape[1])
            latents = KnownFrames(clean, is_known).show(latents)
        with torch.autocast(device.type, dtype=torch.bfloat16), attention(averaged.model.config, device):
            output = forward(latents, timesteps, condition)
        return diffusion_losses(output, clean, noise, terms, timesteps, is_known)

    averaged.model.train()
    train(settings, averaged, loss_of_step)
    averaged.follow(settings.steps)


def attention(config: TransformerConfig, device: torch.device) -> AbstractContextManager[object]:
    """The computation of attention for a model of `config`.

    A GPU's fused kernels are made for long sequences: of a step of demo-text, whose sequences have 16 tokens, they took
    more than half. Matrix products and a softmax, written by hand, trained a third more steps a second.
    """
    tokens, frames = config.tokens_per_frame, config.num_frames
    longest = tokens * frames if config.layout is Layout.JOINT else max(tokens, frames)
    if device.type != "cuda" or longest > MAX_TOKENS_UNFUSED:
        return nullcontext()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # without it, they compute in float32
    return sdpa_kernel(SDPBackend.MATH)


def draw_timesteps(batch: int, steps: int, device: torch.device) -> Tensor:
    """Timesteps (batch,), evenly spread over a density that rises with the noise: there a scene is decided."""
    quantiles = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
    return (quantiles.sqrt() * steps).long().clamp(max=steps - 1)


def draw_known_frames(continues: Tensor, num_frames: int) -> Tensor:
    """Which frames are known, (B, num_frames) bool, for each video whether it `continues` (B,) another one.

    Such a video always has known frames. It shows the end of a motion, or a shape at rest, and alone it would teach
    that prompts for a motion may do so.
    """
    shares, at_start, at_end = torch.tensor(KNOWN_FRAMES, device=continues.device).unbind(dim=1)
    shares = shares.repeat(len(continues), 1)
    shares[:, 0] *= ~continues
    rows = torch.multinomial(shares, 1)
    frames = torch.arange(num_frames, device=continues.device)
    return (frames < at_start[rows]) | (frames >= num_frames - at_end[rows])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", choices=DEMOS)
    parser.add_argument("--latents", type=Path, default=Path("build/training/latents.safetensors"))
    parser.add_argument("--text", type=Path, default=Path("build/training/text"))
    parser.add_argument("--out", type=Path, default=None, help="default: build/training/demo-DEMO")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=18_000, help="the most steps")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after this time, of all calls together")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--start-from", type=Path, default=None, help="weights to begin with (a model.safetensors)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=None, help="compile the model (default: on a GPU)"
    )
    options = parser.parse_args(arguments)
    device, demo = pick_device(options.device), DEMOS[options.demo]
    out = options.out or Path("build/training") / demo.name
    dataset = LatentDataset.load(options.latents).showing(demo.motions).to(device)
    if demo.config.conditioning is Conditioning.CLASS:
        condition_of = class_conditions(dataset)
    else:
        tokenizer = load_tokenizer(options.text / "tokenizer")
        encoder = load_encoder(options.text / "text_encoder", torch.float32).to(device)
        condition_of = text_conditions(make_prompt_pool(dataset, tokenizer, WORDINGS, seed=0).to(device), encoder)
    torch.manual_seed(0)
    model = Transformer(demo.config)
    if options.start_from:
        model.load_state_dict(load_file(options.start_from))
    else:
        initialize(model)
    averaged = Averaged(model).to(device)
    print(f"{demo.name}: {count_parameters(model):,} parameters, {len(dataset):,} videos, on {device}")
    settings = LoopSettings(
        out,
        options.steps,
        options.learning_rate,
        60 * options.minutes,
        warmup_steps=min(300, options.steps // 20),
        squared_gradient_decay=0.99,
        save_every=200,
        log_every=20,
    )
    compiled = device.type == "cuda" if options.compile is None else options.compile
    forward: Forward = torch.compile(model) if compiled else model
    train_diffusion(averaged, forward, dataset, condition_of, settings, options.batch)
    weights = {name: tensor.half().cpu().contiguous() for name, tensor in averaged.average.state_dict().items()}
    save_file(weights, out / "model.safetensors")
    print(f"wrote {out / 'model.safetensors'}")


if __name__ == "__main__":
    main()
