"""Two or more GPUs for one video against one GPU, in one run.

    python -m benchmarks.ranks.several_gpus [--gpus 2] [--size XL] [--cases rows frames bits] [--device cuda]

FrameDiT-H of a published size with random weights. In each round, in turn, an engine on one GPU and an engine whose
passes are shared make the latents of the same request. Times are those of a step, medians over the rounds.

- `rows`: a guided request of 16 frames, whose two rows are shared.
- `frames`: an unguided request of 128 frames, whose frames are shared.
- `bits`: the videos of both engines in deterministic mode, and how far those of shared frames are from one GPU's.

Results are saved after every case. `--device cpu` runs the same on the CPU, with small models.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

# Rank processes run the same code, wherever it was imported from.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))

from benchmarks.models import DESIGNS, NUM_CLASSES, relative_error
from benchmarks.parts.machine import describe_machine
from jobs.cards import ModelCard
from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.generate import Generation
from models.kernels.support import find_obstacle, fuse_transformer
from models.registry import published_model
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer
from models.vae import VideoDecoder
from worker.engine.engine import Denoised, Engine, EngineSettings
from worker.engine.ranks.rank_group import MIN_FRAME_TOKENS, RankGroup
from worker.engine.scheduler import Scheduler
from worker.loading.model_cache import LoadedModel, ModelCache

RESULTS = Path(__file__).parents[1] / "results"
SAMPLER = "ddim"
SHORT, LONG = 16, 128
CASES = ("rows", "frames", "bits")
BARS = {"rows": 0.58, "frames": 0.62}


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of a step. `ratio` is the median of the rounds' own ratios; `bar` is what it may be at most.

    Attributes:
        path: `fast` with fused operations and, for rows, CUDA graphs; `plain` without.
        launch_ms: of the host's work for a shared step.
    """

    case: str
    model: str
    path: str
    frames: int
    rows: int
    gpus: int
    rounds: int
    one_ms: float
    shared_ms: float
    launch_ms: float
    ratio: float
    bar: float


@dataclass(frozen=True)
class Agreement:
    """`latents` of the shared video against those of one GPU. Errors are relative norms."""

    case: str
    model: str
    path: str
    steps: int
    frames: int
    is_equal: bool
    shared_shapes: int
    error: float
    one_gpu_error: float | None
    """Of one GPU's plain bfloat16 pass against float32, to compare with."""


@dataclass(frozen=True)
class Options:
    device: str
    gpus: int
    size: str
    steps: int
    rounds: int
    seconds: float


def make_model(name: str, num_frames: int, options: Options, fast: bool) -> LoadedModel:
    """A class model with random weights, and a VAE that nothing is decoded with."""
    torch.manual_seed(0)
    is_cuda = options.device == "cuda"
    image_size = 256 if is_cuda else 64
    config = published_model(name, num_frames=num_frames, image_size=image_size, num_classes=NUM_CLASSES).config
    if not is_cuda:
        config = replace(config, depth=2)
    dtype = torch.bfloat16 if is_cuda else torch.float32
    with torch.device(options.device):
        transformer = Transformer(config).to(dtype).eval().requires_grad_(False)
    for parameter in transformer.parameters():  # fresh ones start as the identity
        torch.nn.init.normal_(parameter, std=0.02)
    if fast and find_obstacle(torch.device(options.device), dtype) is None:
        fuse_transformer(transformer)
    card = ModelCard(
        id="bench",
        conditioning="class",
        class_names=[str(number) for number in range(NUM_CLASSES)],
        num_frames=num_frames,
        max_frames=num_frames,
        height=image_size,
        width=image_size,
        fps=8,
        num_inference_steps=50,
        guidance_scale=1,
        sampler=SAMPLER,
        samplers=[SAMPLER],
    )
    vae = VideoDecoder(Autoencoder(AutoencoderConfig()), 1.0)
    settings = CheckpointConfig(config, NoiseSchedule(), scaling_factor=1.0)
    return LoadedModel(card, Checkpoint(settings, transformer, vae, None, fast=fast))


def make_engine(model: LoadedModel, ranks: RankGroup | None, fast: bool, deterministic: bool = False) -> Engine:
    models = ModelCache({"bench": model.card}, lambda _: model)
    models.load("bench")
    return Engine(models, Scheduler(), EngineSettings(4, 4, deterministic, cuda_graphs=fast), ranks=ranks)


def make_generation(num_frames: int, guided: bool, steps: int) -> Generation:
    return Generation(
        seed=1,
        num_inference_steps=steps,
        guidance_scale=4.0 if guided else 1.0,
        sampler=SAMPLER,
        num_frames=num_frames,
        condition=Condition(labels=torch.tensor([3])),
        negative=Condition(labels=torch.tensor([NUM_CLASSES])) if guided else None,
    )


def run(engine: Engine, generation: Generation) -> tuple[Tensor, float, float]:
    """The latents, the seconds of a step, and those of the host's work for it."""
    engine.admit("video", "bench", generation)
    synchronize()
    started = time.perf_counter()
    host_seconds, latents = 0.0, None
    while latents is None:
        before = time.perf_counter()
        events = engine.step()
        host_seconds += time.perf_counter() - before
        if not events:
            raise RuntimeError("the engine has nothing to do")
        for event in events:
            if isinstance(event, Denoised):
                latents = event.latents
            elif hasattr(event, "error"):
                raise event.error
    synchronize()
    steps = generation.num_inference_steps
    return latents, (time.perf_counter() - started) / steps, host_seconds / steps


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def launch_seconds(engine: Engine, generation: Generation) -> float:
    """Host seconds of starting a step that the device has not begun to compute."""
    engine.admit("launch", "bench", generation)
    for _ in range(4):
        engine.step()
    synchronize()
    started = time.perf_counter()
    engine.step()
    seconds = time.perf_counter() - started
    engine.evict("launch")
    synchronize()
    return seconds


def compare(case: str, name: str, ranks: RankGroup, options: Options, fast: bool) -> Comparison:
    num_frames, guided = (SHORT, True) if case == "rows" else (LONG if options.device == "cuda" else 8, False)
    model = make_model(name, num_frames, options, fast)
    generation = make_generation(num_frames, guided, options.steps)
    sides = [make_engine(model, group, fast) for group in (None, ranks)]
    rounds: list[tuple[float, float]] = []
    started = time.perf_counter()
    while len(rounds) < 1 + options.rounds:
        one, shared = (run(engine, generation)[1] for engine in sides)
        rounds.append((one, shared))
        print(f"  {case}: {one * 1000:.2f} ms on one, {shared * 1000:.2f} ms shared: {shared / one:.3f}", flush=True)
        if len(rounds) > 3 and time.perf_counter() - started > options.seconds:
            break
    rounds = rounds[1:]  # the first one sets up
    return Comparison(
        case=case,
        model=name,
        path="fast" if fast else "plain",
        frames=num_frames,
        rows=2 if guided else 1,
        gpus=ranks.size,
        rounds=len(rounds),
        one_ms=round(median(one for one, _ in rounds) * 1000, 3),
        shared_ms=round(median(shared for _, shared in rounds) * 1000, 3),
        launch_ms=round(launch_seconds(sides[1], generation) * 1000, 3),
        ratio=round(median(shared / one for one, shared in rounds), 4),
        bar=BARS[case],
    )


@torch.no_grad()
def agree(case: str, name: str, ranks: RankGroup, options: Options, fast: bool) -> Agreement:
    by_rows = case == "rows"
    num_frames = SHORT if by_rows or options.device == "cpu" else LONG
    model = make_model(name, num_frames, options, fast)
    generation = make_generation(num_frames, by_rows, options.steps)
    one, shared = (run(make_engine(model, group, fast, by_rows), generation)[0] for group in (None, ranks))
    exact = ranks.exact.get(model.checkpoint.transformer, {})
    return Agreement(
        case=case,
        model=name,
        path="fast" if fast else "plain",
        steps=options.steps,
        frames=num_frames,
        is_equal=torch.equal(one, shared),
        shared_shapes=sum(exact.values()),
        error=relative_error(shared, one),
        one_gpu_error=None if by_rows else _rounding_error(model, num_frames, options),
    )


def _rounding_error(model: LoadedModel, num_frames: int, options: Options) -> float:
    """Relative error of one pass on one GPU, against the plain pass in float32."""
    transformer = model.checkpoint.transformer
    config, weight = transformer.config, next(transformer.parameters())
    with torch.device(options.device):
        reference = Transformer(config).eval().requires_grad_(False)
    reference.load_state_dict({name: tensor.float() for name, tensor in transformer.state_dict().items()})
    size = config.latent_size
    latents = torch.randn(1, num_frames, config.latent_channels, size, size, device=weight.device)
    timesteps, labels = torch.full((1,), 500.0, device=weight.device), torch.tensor([3], device=weight.device)
    expected = reference(latents, timesteps, Condition(labels=labels))
    actual = transformer(latents.to(weight.dtype), timesteps, Condition(labels=labels))
    return relative_error(actual.float(), expected)


def measure_links(ranks: RankGroup, device: str) -> dict[str, Any]:
    """Whether the GPUs reach each other's memory, without which every exchange goes through the host."""
    if device != "cuda":
        return {"backend": "gloo"}
    reach = [torch.cuda.can_device_access_peer(0, index) for index in range(1, ranks.size)]
    version: Any = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    source, target = (torch.empty(1 << 28, dtype=torch.uint8, device=f"cuda:{index}") for index in (0, 1))
    times = []
    for _ in range(5):
        synchronize()
        started = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize(0)
        torch.cuda.synchronize(1)
        times.append(time.perf_counter() - started)
    return {
        "backend": dist.get_backend(),
        "nccl": ".".join(map(str, version)),
        "peer_access": reach,
        "copy_gb_per_second": round((1 << 28) / min(times) / 1e9, 1),
    }


@contextmanager
def group_of(options: Options, fast: bool) -> Iterator[RankGroup]:
    names = [f"cuda:{index}" if options.device == "cuda" else "cpu" for index in range(options.gpus)]
    min_frame_tokens = MIN_FRAME_TOKENS if options.device == "cuda" else 0
    with RankGroup(
        [torch.device(name) for name in names], 120, cuda_graphs=fast, min_frame_tokens=min_frame_tokens
    ) as ranks:
        ranks.join()
        yield ranks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--design", nargs="+", choices=DESIGNS, default=["hybrid"])
    parser.add_argument("--size", default="XL")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--paths", nargs="+", choices=["fast", "plain"], default=["fast", "plain"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=12, help="of measuring for each comparison, about")
    parser.add_argument("--output", type=Path, default=RESULTS / "several-gpus.json")
    given = parser.parse_args(arguments)

    options = Options(given.device, given.gpus, given.size, given.steps, given.rounds, given.seconds)
    content: dict[str, Any] = {"machine": describe_machine(options.device), "rows": [], "agreements": []}
    started = time.perf_counter()

    def save(kind: str, row: Comparison | Agreement) -> None:
        content[kind].append(asdict(row))
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(content, indent=2) + "\n")
        print(f"{time.perf_counter() - started:6.1f} s  {asdict(row)}", flush=True)

    for path in given.paths:
        fast = path == "fast"
        with group_of(options, fast) as ranks:
            content["links"] = measure_links(ranks, options.device)
            print(f"{time.perf_counter() - started:6.1f} s  group of {ranks.size}: {content['links']}", flush=True)
            for name in (DESIGNS[design].format(size=options.size) for design in given.design):
                for case in ("rows", "frames"):
                    if case in given.cases:
                        save("rows", compare(case, name, ranks, options, fast))
                    if "bits" in given.cases:
                        save("agreements", agree(case, name, ranks, options, fast))


if __name__ == "__main__":
    main()
