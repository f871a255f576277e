"""The cost of adapters in a pass: all rows with an adapter each, against the same pass without, in turn in one run.

    python -m benchmarks.adapters [--size S] [--rank 32] [--rows 2] [--rounds 7]

Models of 16 frames of 256 x 256 with random weights, on the CPU in float32. The adapters are on q, k, v and the output
of every attention, as FrameDiT's own text training has them. Seconds are processor time of all threads, which other
work on the machine hardly changes. A ratio is the median of the rounds' own ratios.
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

from benchmarks.parts.machine import describe_machine
from models.adapters.adapter import Adapter, LowRankUpdate, ScaledAdapter
from models.adapters.row_adapters import RowAdapters
from models.adapters.targets import find_targets
from models.conditioning import Condition
from models.config import TransformerConfig
from models.registry import TEXT_MODELS, published_model
from models.transformer import Transformer

NUM_FRAMES = 16
IMAGE_SIZE = 256
NUM_CLASSES = 101
NUM_TOKENS = 40
ADAPTED_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", ".qkv", ".proj")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds: seconds of each side, and the ratio of a round."""

    model: str
    depth: int
    rows: int
    rank: int
    adapters: str
    rounds: int
    plain_seconds: float
    adapted_seconds: float
    ratio: float


def class_config(size: str, depth: int) -> TransformerConfig:
    name = f"FrameDiTH-{size}/128-512/2-softmax_u-concat"
    model = published_model(name, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES)
    return replace(model.config, depth=depth)


def text_config(size: str, depth: int) -> TransformerConfig:
    """The text family with the width of a class model: it is published in one size."""
    like = class_config(size, depth)
    name = next(name for name in TEXT_MODELS if name.startswith("FrameDiTH"))
    text = published_model(name, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, num_classes=None).config
    return replace(text, depth=depth, width=like.width, heads=like.heads, matrix=like.matrix)


def random_adapter(config: TransformerConfig, rank: int, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    updates: dict[str, dict[int, LowRankUpdate]] = {}
    for module, target in find_targets(config).items():
        if module.endswith(ADAPTED_LAYERS):
            down = torch.randn(rank, target.num_inputs, generator=generator) / target.num_inputs**0.5
            up = torch.randn(target.num_outputs, rank, generator=generator) / rank**0.5
            updates.setdefault(target.name, {})[target.first_output] = LowRankUpdate(target.first_output, down, up)
    parts = {name: tuple(by_output[first] for first in sorted(by_output)) for name, by_output in updates.items()}
    return Adapter(config, parts, f"random {seed}")


@torch.inference_mode()
def compare(family: str, config: TransformerConfig, rows: int, rank: int, rounds: int, *, is_mixed: bool) -> Comparison:
    """`is_mixed`: another adapter for each row, instead of one for all."""
    torch.manual_seed(0)
    transformer = Transformer(config).eval().requires_grad_(False)
    side = config.latent_size
    latents, timesteps = torch.randn(rows, NUM_FRAMES, config.latent_channels, side, side), torch.full((rows,), 500.0)
    condition = Condition(labels=torch.zeros(rows, dtype=torch.long))
    if config.text_width is not None:
        condition = Condition(text=torch.randn(rows, NUM_TOKENS, config.text_width))
    adapters = [ScaledAdapter(random_adapter(config, rank, seed), 1.0) for seed in range(rows if is_mixed else 1)]
    stacked = RowAdapters([(adapters[row % len(adapters)],) for row in range(rows)])
    seconds: dict[str, list[float]] = {"plain": [], "adapted": []}
    for _ in range(1 + rounds):  # the first round warms both sides up
        for name, chosen in (("plain", None), ("adapted", stacked)):
            seconds[name].append(_time(lambda: transformer(latents, timesteps, condition, chosen)))  # noqa: B023
    plain, adapted = seconds["plain"][1:], seconds["adapted"][1:]
    return Comparison(
        model=f"FrameDiT-H {family}, width {config.width}",
        depth=config.depth,
        rows=rows,
        rank=rank,
        adapters="one for each row" if is_mixed else "one for all rows",
        rounds=rounds,
        plain_seconds=round(median(plain), 4),
        adapted_seconds=round(median(adapted), 4),
        ratio=round(median(after / before for before, after in zip(plain, adapted, strict=True)), 4),
    )


def _time(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S")
    parser.add_argument("--depth", type=int, default=2, help="blocks: a ratio hardly depends on their number")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "adapters.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    comparisons = []
    for family, config in (
        ("text", text_config(options.size, options.depth)),
        ("class", class_config(options.size, options.depth)),
    ):
        for is_mixed in (False, True):
            comparison = compare(family, config, options.rows, options.rank, options.rounds, is_mixed=is_mixed)
            print(comparison, flush=True)
            comparisons.append(asdict(comparison))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": describe_machine("cpu"), "dtype": "float32", "passes": comparisons}
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
