"""The running batch against one request at a time, and what the engine adds to the passes of the bare model.

    python -m benchmarks.engine --device cuda [--design hybrid matrix local full3d] [--size XL] [--requests 1 2 4 8]

Models of published sizes with random weights: the time of a step does not depend on them. In each round, in turn, the
plain loop of `models/generate.py` makes one video's latents, the bare transformer does as many passes of as many rows
as the engine will, and the engine makes those of some requests that come together. Ratios are medians over the rounds.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from tqdm import tqdm

from benchmarks.machine import describe_machine
from benchmarks.models import DESIGNS, DTYPES, IMAGE_SIZE, NUM_CLASSES, NUM_FRAMES, seconds
from jobs.cards import ModelCard
from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.generate import Generation, denoise
from models.registry import SIZES, published_model
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer
from models.vae import VideoDecoder
from worker.engine import Denoised, Engine, EngineSettings
from worker.policy import Candidate, Policy
from worker.resident import ResidentModel, ResidentModels

RESULTS = Path(__file__).parent / "results"
SAMPLER = "ddim"


@dataclass(frozen=True)
class Comparison:
    """`rows` are those of a pass of all requests: two of each with guidance, else one.

    Attributes:
        alone_seconds: of one request in the plain loop.
        bare_seconds: of the bare transformer's passes.
        engine_seconds: of all requests in the engine.
        throughput: videos in a second by the engine, as a multiple of the plain loop's.
        overhead: the engine's time as a multiple of its bare passes'.
    """

    model: str
    dtype: str
    requests: int
    rows: int
    steps: int
    alone_seconds: float
    bare_seconds: float
    engine_seconds: float
    throughput: float
    overhead: float


def make_model(name: str, depth: int | None, dtype: torch.dtype, device: str) -> ResidentModel:
    """A class model of a published name, and a VAE that nothing is decoded with, both with random weights."""
    torch.manual_seed(0)
    config = published_model(name, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES).config
    config = replace(config, depth=depth or config.depth)
    with torch.device(device):
        transformer = Transformer(config).to(dtype).eval().requires_grad_(False)
    for parameter in transformer.parameters():  # fresh ones start as the identity
        torch.nn.init.normal_(parameter, std=0.02)
    card = ModelCard(
        id="bench",
        conditioning="class",
        class_names=[str(number) for number in range(NUM_CLASSES)],
        num_frames=NUM_FRAMES,
        max_frames=NUM_FRAMES,
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        fps=8,
        num_inference_steps=50,
        guidance_scale=1,
        sampler=SAMPLER,
        samplers=[SAMPLER],
    )
    settings = CheckpointConfig(config, NoiseSchedule(), scaling_factor=1.0)
    return ResidentModel(card, Checkpoint(settings, transformer, VideoDecoder(AutoencoderKL(), 1.0), None))


def make_generation(seed: int, steps: int, guided: bool) -> Generation:
    return Generation(
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=4.0 if guided else 1.0,
        sampler=SAMPLER,
        num_frames=NUM_FRAMES,
        condition=Condition(labels=torch.tensor([seed % NUM_CLASSES])),
        negative=Condition(labels=torch.tensor([NUM_CLASSES])),
    )


def run_alone(model: ResidentModel, generation: Generation) -> None:
    denoise(model.checkpoint.transformer, model.checkpoint.schedule, generation)


@torch.no_grad()
def run_bare(model: ResidentModel, rows: int, steps: int) -> None:
    config, weight = model.checkpoint.config, next(model.checkpoint.transformer.parameters())
    size = config.latent_size
    latents = weight.new_zeros(rows, NUM_FRAMES, config.latent_channels, size, size)
    timesteps = torch.zeros(rows, device=weight.device)
    condition = Condition(labels=torch.zeros(rows, dtype=torch.long, device=weight.device))
    for _ in range(steps):
        model.checkpoint.transformer(latents, timesteps, condition)


def run_engine(engine: Engine, generations: Sequence[Generation]) -> None:
    """Raises RuntimeError when a request fails, or when not all of them shared all passes."""
    for number, generation in enumerate(generations):
        engine.admit(str(number), "bench", generation)
    done = 0
    while events := engine.step():
        done += sum(isinstance(event, Denoised) for event in events)
    if done != len(generations):
        raise RuntimeError(f"{len(generations) - done} of {len(generations)} requests failed")


class _Everybody(Policy):
    """All together: what is measured is the pass, not who is chosen for it."""

    def choose(self, candidates: Sequence[Candidate[Any]], *_: object, **__: object) -> list[str]:
        return [candidate.request_id for candidate in candidates]


def compare(
    name: str, model: ResidentModel, dtype: str, requests: int, guided: bool, steps: int, rounds: int, device: str
) -> Comparison:
    """All three in turn, after one round that does not count."""
    rows = requests * (2 if guided else 1)
    passes: list[int] = []
    engine = Engine(
        ResidentModels({"bench": model.card}, lambda _: model),
        _Everybody(),
        EngineSettings(max_batch_rows=rows, max_seats=requests),
        on_pass=lambda _, rows, seconds: passes.append(rows),
    )
    generations = [make_generation(seed, steps, guided) for seed in range(requests)]
    sides = (
        partial(run_alone, model, generations[0]),
        partial(run_bare, model, rows, steps),
        partial(run_engine, engine, generations),
    )
    times = [[seconds(side, device) for side in sides] for _ in range(1 + rounds)][1:]
    if set(passes) != {rows}:
        raise RuntimeError(f"passes of {sorted(set(passes))} rows: all were to have {rows}")
    return Comparison(
        model=name,
        dtype=dtype,
        requests=requests,
        rows=rows,
        steps=steps,
        alone_seconds=round(median(alone for alone, _, _ in times), 4),
        bare_seconds=round(median(bare for _, bare, _ in times), 4),
        engine_seconds=round(median(own for _, _, own in times), 4),
        throughput=round(median(requests * alone / own for alone, _, own in times), 3),
        overhead=round(median(own / bare for _, bare, own in times), 3),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bfloat16"])
    parser.add_argument("--size", choices=SIZES, default="XL")
    parser.add_argument("--depth", type=int, default=None, help="default: that of the size")
    parser.add_argument("--requests", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--guided", action="store_true", help="two rows for each request")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "engine.json")
    options = parser.parse_args(arguments)

    results = []
    with tqdm(total=len(options.design) * len(options.dtype) * len(options.requests), unit="case") as progress:
        for design in options.design:
            for dtype in options.dtype:
                name = DESIGNS[design].format(size=options.size)
                model = make_model(name, options.depth, DTYPES[dtype], options.device)
                for requests in options.requests:
                    progress.set_description(f"{name} {dtype}, {requests} requests")
                    row = compare(
                        name, model, dtype, requests, options.guided, options.steps, options.rounds, options.device
                    )
                    results.append(row)
                    progress.write(
                        f"{row.model:40} {row.dtype:8} {row.rows:3} rows: {1000 * row.engine_seconds / row.steps:7.1f} "
                        f"ms a step, {row.throughput:5.2f}x alone, {row.overhead:5.3f}x bare passes"
                    )
                    progress.update()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(options.device)
    options.output.write_text(
        json.dumps({"machine": machine, "rows": [asdict(row) for row in results]}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
