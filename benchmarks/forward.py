"""The forward pass on a CUDA device: plain, fused, and against the time of its own matrix products.

    python -m benchmarks.forward [--design hybrid matrix local full3d] [--size XL S] [--rows 1 2 8] [--published]

Models of published sizes with random weights in bfloat16, 16 frames of 256 x 256. All sides of a case run in the same
process. Times are medians over CUDA graph replays, except for the eager passes. Errors are relative to the plain pass
in float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from benchmarks.models import DESIGNS, IMAGE_SIZE, NUM_CLASSES, NUM_FRAMES, relative_error
from benchmarks.parts.machine import describe_machine
from benchmarks.parts.published_form import PublishedForm
from models.conditioning import Condition
from models.config import Conditioning, TransformerConfig
from models.kernels.fused_blocks import FusedBlocks
from models.registry import published_model
from models.transformer import Transformer

RESULTS = Path(__file__).parent / "results"
DTYPE = torch.bfloat16
REPEATS = 20
TEXT_TOKENS = 120
TEXT_DESIGNS = {"text-hybrid": "FrameDiTHT2V-XL/256-2-1-2-concat", "text-local": "LatteT2V"}

_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
    torch.ops.aten._addmm_activation.default,
}


@dataclass(frozen=True)
class Result:
    """Milliseconds of a pass, by how it runs.

    Attributes:
        products_ms: the matrix products of the fused pass and nothing else.
        of_products: `fused_ms / products_ms`.
        published_ms: the published form, eager; None unless it was asked for.
        plain_error, fused_error: relative to float32.
    """

    model: str
    rows: int
    eager_ms: float
    plain_ms: float
    fused_ms: float
    products_ms: float
    of_products: float
    published_ms: float | None
    plain_error: float
    fused_error: float


class RecordProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record every matrix product with its arguments. Tensors that are not weights become one stand-in per layout."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._stand_ins: dict[Any, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS:
            self.calls.append((func, tuple(self._stand_in(arg) for arg in args), kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _stand_in(self, arg: Any) -> Any:
        if not isinstance(arg, Tensor) or arg.untyped_storage().data_ptr() in self._weights:
            return arg
        layout = (tuple(arg.shape), arg.stride(), arg.dtype)
        if layout not in self._stand_ins:
            like = torch.empty_strided(arg.shape, arg.stride(), dtype=arg.dtype, device=arg.device)
            self._stand_ins[layout] = like.copy_(torch.randn_like(like))
        return self._stand_ins[layout]

    def replay(self) -> None:
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def build(name: str) -> Transformer:
    """A model of a published name with random weights on the CUDA device, float32."""
    torch.manual_seed(0)
    text = name in TEXT_DESIGNS.values()
    size = 512 if text else IMAGE_SIZE
    config = published_model(name, num_frames=NUM_FRAMES, image_size=size, num_classes=None if text else NUM_CLASSES)
    with torch.device("cuda"):
        transformer = Transformer(config.config).eval().requires_grad_(False)
    for parameter in transformer.parameters():  # fresh ones start as the identity
        torch.nn.init.normal_(parameter, std=0.02)
    return transformer


def make_inputs(config: TransformerConfig, rows: int) -> tuple[Tensor, Tensor, Condition]:
    torch.manual_seed(1)
    size = config.latent_size
    latents = torch.randn(rows, NUM_FRAMES, config.latent_channels, size, size, device="cuda")
    timesteps = torch.randint(1000, (rows,), device="cuda").float()
    if config.conditioning is Conditioning.TEXT:
        text = torch.randn(rows, TEXT_TOKENS, config.text_width or 0, device="cuda")
        mask = torch.arange(TEXT_TOKENS, device="cuda")[None] < torch.randint(10, TEXT_TOKENS, (rows, 1), device="cuda")
        return latents, timesteps, Condition(text=text, text_mask=mask)
    return latents, timesteps, Condition(labels=torch.randint(NUM_CLASSES, (rows,), device="cuda"))


def eager_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median over `repeats`, by events in the stream."""
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return round(float(median(times[3:])), 4)


def graph_ms(work: Callable[[], object]) -> float:
    """Of a CUDA graph of `work`."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return eager_ms(graph.replay)


@torch.no_grad()
def measure(name: str, row_counts: Sequence[int], published: bool) -> list[Result]:
    reference = build(name)
    config = reference.config
    inputs = {rows: make_inputs(config, rows) for rows in row_counts}
    expected = {rows: reference(*values) for rows, values in inputs.items()}
    model = reference.to(DTYPE)
    other = PublishedForm(config).to("cuda", DTYPE).eval().requires_grad_(False) if published else None
    results = []
    for rows, (latents, timesteps, condition) in inputs.items():
        latents, condition = latents.to(DTYPE), condition.to("cuda", DTYPE)

        def run(latents: Tensor = latents, timesteps: Tensor = timesteps, condition: Condition = condition) -> Tensor:
            output: Tensor = model(latents, timesteps, condition)
            return output

        model.fused_blocks = None
        plain_error = relative_error(run().float(), expected[rows])
        eager, plain = eager_ms(run), graph_ms(run)
        model.fused_blocks = FusedBlocks(model)
        fused_error = relative_error(run().float(), expected[rows])
        fused = graph_ms(run)
        with RecordProducts([*model.parameters(), *model.buffers()]) as products:
            run()
        alone = graph_ms(products.replay)
        del products
        published_ms = None
        if other is not None:
            labels = condition.labels
            assert labels is not None
            published_ms = eager_ms(lambda: other(latents, timesteps, labels), repeats=10)  # noqa: B023
        results.append(
            Result(
                model=name,
                rows=rows,
                eager_ms=eager,
                plain_ms=plain,
                fused_ms=fused,
                products_ms=alone,
                of_products=round(fused / alone, 3),
                published_ms=published_ms,
                plain_error=plain_error,
                fused_error=fused_error,
            )
        )
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", nargs="+", choices=[*DESIGNS, *TEXT_DESIGNS], default=list(DESIGNS))
    parser.add_argument("--size", nargs="+", default=["XL"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 8])
    parser.add_argument("--published", action="store_true", help="time the published form, too (class models)")
    parser.add_argument("--output", type=Path, default=RESULTS / "forward.json")
    options = parser.parse_args(arguments)

    names = [DESIGNS[name].format(size=size) for size in options.size for name in options.design if name in DESIGNS]
    names += [TEXT_DESIGNS[name] for name in options.design if name in TEXT_DESIGNS]
    results: list[Result] = []
    with tqdm(names, unit="model") as progress:
        for name in progress:
            published = options.published and name not in TEXT_DESIGNS.values()
            for result in measure(name, options.rows, published):
                results.append(result)
                progress.write(" ".join(f"{key}={value}" for key, value in asdict(result).items()))
            torch.cuda.empty_cache()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": describe_machine("cuda"), "rows": [asdict(result) for result in results]}
    options.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
