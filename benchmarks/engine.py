"""The running batch against one request at a time, and what the engine adds to the passes of the bare model.

    python -m benchmarks.engine --device cuda [--design hybrid matrix local full3d] [--size XL] [--requests 1 2 4 8]

Models of published sizes with random weights: the time of a step does not depend on them. In each round, in turn, the
plain loop of `models/generate.py` makes one video's latents, the bare transformer does as many passes of as many rows
as the engine will, and the engine makes those of some requests that come together. Ratios are medians over the rounds.
`--checkpoint` takes a checkpoint folder instead.

On CUDA all sides run the fast path, and the bare passes are replays of one CUDA graph; `--plain` switches both off.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.models import DESIGNS, DTYPES, IMAGE_SIZE, NUM_CLASSES, NUM_FRAMES, seconds
from benchmarks.parts.machine import describe_machine
from jobs.cards import ModelCard, read_card
from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.generate import Generation, denoise
from models.kernels.support import find_obstacle, fuse
from models.registry import SIZES, published_model
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer
from models.vae import VideoDecoder
from worker.engine.engine import Denoised, Engine, EngineSettings
from worker.engine.profile.samples import longest_condition
from worker.engine.scheduler import Candidate, Scheduler
from worker.loading.model_cache import LoadedModel, ModelCache

RESULTS = Path(__file__).parent / "results"
SAMPLER = "ddim"


@dataclass(frozen=True)
class Comparison:
    """`rows` are those of a pass of all requests: two of each with guidance, else one.

    Attributes:
        alone_seconds: of one request in the plain loop.
        bare_seconds: of the bare transformer's passes.
        engine_seconds: of all requests in the engine.
        step_ms: of one engine step, in wall time.
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
    step_ms: float
    throughput: float
    overhead: float


@dataclass(frozen=True)
class Case:
    """A case to measure."""

    device: str
    guided: bool
    steps: int
    rounds: int
    fast: bool
    deterministic: bool


def make_model(name: str, depth: int | None, dtype: torch.dtype, case: Case) -> LoadedModel:
    """A class model of a published name, and a VAE that nothing is decoded with, both with random weights."""
    torch.manual_seed(0)
    config = published_model(name, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES).config
    config = replace(config, depth=depth or config.depth)
    with torch.device(case.device):
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
    vae = VideoDecoder(Autoencoder(AutoencoderConfig()).to(case.device, dtype), 1.0)
    if case.fast and find_obstacle(torch.device(case.device), dtype) is None:
        fuse(transformer, vae)
    return LoadedModel(card, Checkpoint(settings, transformer, vae, None))


def read_model(folder: Path, dtype: torch.dtype, case: Case) -> LoadedModel:
    return LoadedModel(read_card(folder), load_checkpoint(folder, case.device, dtype, fast=case.fast))


def make_generation(model: LoadedModel, seed: int, case: Case) -> Generation:
    condition = longest_condition(model.checkpoint, rows=1)
    return Generation(
        seed=seed,
        num_inference_steps=case.steps,
        guidance_scale=4.0 if case.guided else 1.0,
        sampler=SAMPLER,
        num_frames=model.checkpoint.config.num_frames,
        condition=condition,
        negative=condition,
    )


def run_alone(model: LoadedModel, generation: Generation) -> None:
    denoise(model.checkpoint.transformer, model.checkpoint.schedule, generation)


@torch.no_grad()
def bare_pass(model: LoadedModel, rows: int, graphed: bool) -> Callable[[], object]:
    """A pass of the transformer over random latents, as a CUDA graph if `graphed`."""
    config, weight = model.checkpoint.config, next(model.checkpoint.transformer.parameters())
    size = config.latent_size
    latents = torch.randn(rows, config.num_frames, config.latent_channels, size, size).to(weight)
    timesteps = torch.zeros(rows, device=weight.device)
    condition = longest_condition(model.checkpoint, rows).to(weight.device, weight.dtype)
    run = partial(model.checkpoint.transformer, latents, timesteps, condition)
    if not graphed:
        return run
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay(_: Callable[[], object] = run) -> None:  # which holds the graph's inputs
        graph.replay()

    return replay


@torch.no_grad()
def run_bare(run: Callable[[], object], steps: int) -> None:
    for _ in range(steps):
        run()


def run_engine(engine: Engine, generations: Sequence[Generation]) -> None:
    """Raises RuntimeError when a request fails, or when not all of them shared all passes."""
    for number, generation in enumerate(generations):
        engine.admit(str(number), "bench", generation)
    done = 0
    while events := engine.step():
        done += sum(isinstance(event, Denoised) for event in events)
    if done != len(generations):
        raise RuntimeError(f"{len(generations) - done} of {len(generations)} requests failed")


class _Everybody(Scheduler):
    """A scheduler that chooses every request: the benchmark measures the pass, not the choice."""

    def choose(self, candidates: Sequence[Candidate[Any]], *_: object, **__: object) -> list[str]:
        return [candidate.request_id for candidate in candidates]


def compare(name: str, model: LoadedModel, dtype: str, requests: int, case: Case) -> Comparison:
    """All three in turn, after one round that does not count."""
    rows = requests * (2 if case.guided else 1)
    passes: list[int] = []
    models = ModelCache({"bench": model.card}, lambda _: model)
    models.load("bench")
    engine = Engine(
        models,
        _Everybody(),
        EngineSettings(rows, requests, case.deterministic, cuda_graphs=case.fast),
        on_pass=lambda _, rows, seconds: passes.append(rows),
    )
    if case.deterministic:
        engine.warm_up(max_seconds=60)
    generations = [make_generation(model, seed, case) for seed in range(requests)]
    sides = (
        partial(run_alone, model, generations[0]),
        partial(run_bare, bare_pass(model, rows, graphed=case.fast and case.device == "cuda"), case.steps),
        partial(run_engine, engine, generations),
    )
    times = [[seconds(side, case.device) for side in sides] for _ in range(1 + case.rounds)][1:]
    if set(passes) != {rows} and not case.deterministic:
        raise RuntimeError(f"passes of {sorted(set(passes))} rows: all were to have {rows}")
    own_seconds = median(own for _, _, own in times)
    return Comparison(
        model=name,
        dtype=dtype,
        requests=requests,
        rows=rows,
        steps=case.steps,
        alone_seconds=round(median(alone for alone, _, _ in times), 4),
        bare_seconds=round(median(bare for _, bare, _ in times), 4),
        engine_seconds=round(own_seconds, 4),
        step_ms=round(own_seconds / case.steps * 1000, 3),
        throughput=round(median(requests * alone / own for alone, _, own in times), 3),
        overhead=round(median(own / bare for _, bare, own in times), 3),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", nargs="*", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--checkpoint", nargs="*", type=Path, default=[], help="checkpoint folders to measure, too")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bfloat16"])
    parser.add_argument("--size", choices=SIZES, default="XL")
    parser.add_argument("--depth", type=int, default=None, help="default: that of the size")
    parser.add_argument("--requests", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--guided", action="store_true", help="two rows for each request")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="without fused operations and CUDA graphs")
    parser.add_argument("--deterministic", action="store_true", help="requests share exact passes only")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "engine.json")
    options = parser.parse_args(arguments)

    case = Case(options.device, options.guided, options.steps, options.rounds, not options.plain, options.deterministic)
    load: dict[str, Callable[[torch.dtype], LoadedModel]] = {
        name: partial(make_model, name, options.depth, case=case)
        for name in (DESIGNS[design].format(size=options.size) for design in options.design)
    }
    load |= {folder.name: partial(read_model, folder, case=case) for folder in options.checkpoint}
    results = []
    with tqdm(total=len(load) * len(options.dtype) * len(options.requests), unit="case") as progress:
        for name, dtype in product(load, options.dtype):
            model = load[name](DTYPES[dtype])
            for requests in options.requests:
                progress.set_description(f"{name} {dtype}, {requests} requests")
                row = compare(name, model, dtype, requests, case)
                results.append(row)
                progress.write(
                    f"{row.model:40} {row.dtype:8} {row.rows:3} rows: {row.step_ms:7.2f} ms a step, "
                    f"{row.throughput:5.2f}x alone, {row.overhead:5.3f}x bare passes"
                )
                progress.update()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(options.device)
    options.output.write_text(
        json.dumps({"machine": machine, "rows": [asdict(row) for row in results]}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
