"""The forward pass of `models/` against the published form of the same mathematics, interleaved in one run.

    python -m benchmarks.models [--design hybrid matrix local full3d] [--dtype float32 bfloat16] [--size S] [--depth 4]

A ratio is the median, over rounds, of the published form's time divided by ours in the same round: what else the
machine does then falls on both sides. On a busy machine `--threads 1` is steadier: a second thread that has to wait for
its core makes the first one wait too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.parts.machine import describe_machine
from benchmarks.parts.published_form import PublishedForm
from models.conditioning import Condition
from models.conversion.state_dict import convert_state_dict
from models.registry import SIZES, PublishedModel, published_model
from models.transformer import Transformer

DESIGNS = {
    "hybrid": "FrameDiTH-{size}/128-512/2-softmax_u-concat",
    "matrix": "FrameDiTG-{size}/128-512/2-softmax_u",
    "local": "Latte-{size}/2",
    "full3d": "DiT3D-{size}/2",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NUM_FRAMES = 16
IMAGE_SIZE = 256  # 32 x 32 latents
NUM_CLASSES = 101
TOLERANCE = 1e-4
MIN_ROUNDS = 2
RESULTS = Path(__file__).parent / "results"

Side = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """One row of the results: medians over the rounds, and of the rounds' own ratios."""

    model: str
    depth: int
    dtype: str
    batch: int
    rounds: int
    ours_seconds: float
    published_seconds: float
    ratio: float
    relative_error: float


def build_sides(model: PublishedModel, device: str) -> tuple[Transformer, PublishedForm]:
    """Both sides with the same random weights, in float32."""
    torch.manual_seed(0)
    published = PublishedForm(model.config)
    with torch.device("meta"):
        ours = Transformer(model.config)
    ours.load_state_dict(convert_state_dict(published.state_dict(), model), assign=True)
    return ours.to(device).requires_grad_(False), published.to(device).requires_grad_(False)


def compare(name: str, depth: int, dtype: str, batch: int, budget_seconds: float, device: str) -> Comparison:
    """Both sides in turn, for about `budget_seconds`. Raises RuntimeError when they do not compute the same."""
    model = published_model(name, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES)
    model = replace(model, config=replace(model.config, depth=depth))
    ours, published = build_sides(model, device)
    size = model.config.latent_size
    latents = torch.randn(batch, NUM_FRAMES, model.config.latent_channels, size, size, device=device)
    timesteps = torch.randint(1000, (batch,), device=device)
    labels = torch.randint(NUM_CLASSES, (batch,), device=device)
    error = relative_error(ours(latents, timesteps, Condition(labels=labels)), published(latents, timesteps, labels))
    if error > TOLERANCE:
        raise RuntimeError(f"{name}: the sides differ by {error:.1e} relative, {TOLERANCE:.0e} is allowed")
    ours, published, latents = ours.to(DTYPES[dtype]), published.to(DTYPES[dtype]), latents.to(DTYPES[dtype])
    times = measure(
        lambda: ours(latents, timesteps, Condition(labels=labels)),
        lambda: published(latents, timesteps, labels),
        budget_seconds,
        device,
    )
    return Comparison(
        model=name,
        depth=depth,
        dtype=dtype,
        batch=batch,
        rounds=len(times),
        ours_seconds=round(median(a for a, _ in times), 4),
        published_seconds=round(median(b for _, b in times), 4),
        ratio=round(median(b / a for a, b in times), 3),
        relative_error=error,
    )


def measure(ours: Side, published: Side, budget_seconds: float, device: str) -> list[tuple[float, float]]:
    """Seconds of each side in each round, after one round that does not count; at least two rounds."""
    times: list[tuple[float, float]] = []
    while len(times) < 1 + MIN_ROUNDS or sum(map(sum, times)) < budget_seconds:
        times.append((seconds(ours, device), seconds(published, device)))
    return times[1:]


def seconds(side: Side, device: str) -> float:
    start = time.perf_counter()
    side()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """`|a - b| / |b|`."""
    return float((actual - expected).norm() / expected.norm())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--threads", type=int, default=None, help="default: one for each core")
    parser.add_argument("--seconds", type=float, default=10, help="of measuring for each case (at least two rounds)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "models.json")
    options = parser.parse_args(arguments)

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    machine = describe_machine(options.device)
    cases = [(design, dtype, batch) for dtype in options.dtype for design in options.design for batch in options.batch]
    rows = []
    with torch.inference_mode(), tqdm(cases, unit="case") as progress:
        for design, dtype, batch in progress:
            name = DESIGNS[design].format(size=options.size)
            progress.set_description(f"{name} {dtype} batch {batch}")
            row = compare(name, options.depth, dtype, batch, options.seconds, options.device)
            rows.append(row)
            progress.write(
                f"{row.model:40} {row.dtype:8} batch {row.batch}: ours {row.ours_seconds:7.3f} s, "
                f"published {row.published_seconds:7.3f} s, {row.ratio:5.2f}x"
            )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
