"""Speed plans against fewer steps of the same sampler: likeness to the exact result, and attributes, over cost.

    python -m benchmarks.speed_plans --videos 6

Every point is measured on the same prompts or classes, which calibration has not seen. Each finished point is stored,
so a benchmark that was interrupted goes on where it stopped.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.parts.machine import describe_machine
from benchmarks.scheduling.chart import Panel, save_chart
from models.generate import Generation
from training.evaluation.evaluate import Result, shares
from training.evaluation.tasks import Task, class_tasks, text_tasks
from training.evaluation.vision import read_attributes
from worker.calibration.quality import psnr_db, ssim
from worker.engine.denoise_many import denoise_many
from worker.engine.engine import EngineSettings
from worker.library import load
from worker.loading.model_cache import LoadedModel

RESULTS = Path("benchmarks/results/speed-plans.json")
CHART = Path("docs/speed.png")
STEPS = 50
FEWER_STEPS = (31, 22, 15)
# Tasks of every kind, in an order that mixes them.
LEAST_TASKS, STRIDE = 60, 7


@dataclass(frozen=True)
class Point:
    """One way to spend rows. `rows` is a plan of `STEPS` steps, or so many exact ones."""

    name: str
    rows: str

    @property
    def rows_share(self) -> float:
        return round(sum(map(int, self.rows)) / (2 * STEPS), 4)

    def generation(self, exact: Generation) -> Generation:
        plan = self.rows if self.name in ("balanced", "fast") else None
        return replace(exact, num_inference_steps=len(self.rows), plan=plan)


class Comparison:
    """One model and sampler."""

    def __init__(self, model: LoadedModel, sampler: str, num_videos: int, cache: Path) -> None:
        self._model, self._sampler, self._cache = model, sampler, cache
        num_tasks = max(LEAST_TASKS, num_videos)
        tasks = class_tasks(num_tasks) if model.card.conditioning == "class" else text_tasks(num_tasks, seed=1)
        self._tasks = [tasks[STRIDE * number % num_tasks] for number in range(num_videos)]

    @property
    def points(self) -> list[Point]:
        plans = [plan for plan in self._model.card.speed_plans if plan.sampler == self._sampler]
        fewer = [Point(f"{steps} steps", "2" * steps) for steps in FEWER_STEPS]
        return [Point("exact", "2" * STEPS), *(Point(plan.speed, plan.rows) for plan in plans), *fewer]

    def measure(self, point: Point) -> dict[str, Any]:
        reference = self._frames(Point("exact", "2" * STEPS))
        frames = self._frames(point)
        pairs = list(zip(frames, reference, strict=True))
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as readers:
            seen = list(readers.map(read_attributes, [video.numpy() for video in frames], chunksize=4))
        results = [Result(task, attributes, 0.0) for task, attributes in zip(self._tasks, seen, strict=True)]
        psnrs = [psnr_db(*pair) for pair in pairs]
        return {
            "rows_share": point.rows_share,
            "rows": point.rows,
            "psnr_db": round(fmean(psnrs), 2),
            "psnr_db_lowest": round(min(psnrs), 2),
            "ssim": round(fmean(ssim(*pair) for pair in pairs), 4),
            "attributes": {name: round(share, 3) for name, share in shares(results).items()},
        }

    def _frames(self, point: Point) -> list[Tensor]:
        path = self._cache / f"{self._model.card.id}-{self._sampler}-{point.name.replace(' ', '-')}.safetensors"
        if not path.exists():
            found = self._generate([point.generation(self._exact(number, task)) for number, task in self._numbered()])
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({str(number): self._model.checkpoint.vae.decode(latents) for number, latents in found}, path)
        stored = load_file(path)
        return [stored[str(number)] for number, _ in self._numbered()]

    def _numbered(self) -> Iterator[tuple[int, Task]]:
        return enumerate(self._tasks)

    def _generate(self, generations: Sequence[Generation]) -> Iterator[tuple[int, Tensor]]:
        builds = [lambda generation=generation: generation for generation in generations]
        for number, latents in denoise_many(self._model, builds, EngineSettings()):
            if isinstance(latents, Exception):
                raise latents
            yield number, latents

    def _exact(self, seed: int, task: Task) -> Generation:
        checkpoint, card = self._model.checkpoint, self._model.card
        condition = checkpoint.condition(task.prompt, task.label)
        return Generation(
            seed=seed,
            num_inference_steps=STEPS,
            guidance_scale=card.guidance_scale,
            sampler=self._sampler,
            num_frames=card.num_frames,
            condition=condition,
            negative=checkpoint.negative(card.negative_prompt, condition),
        )


def draw(results: Mapping[str, Any]) -> None:
    """Save the chart of PSNR over the share of the rows."""
    panels = []
    for title, points in results["comparisons"].items():
        lines = {
            "fewer steps": [point for name, point in points.items() if name.endswith("steps")],
            "speed plans": [point for name, point in points.items() if name in ("balanced", "fast")],
        }
        curves = {
            name: sorted((point["rows_share"], point["psnr_db"]) for point in line) for name, line in lines.items()
        }
        if all(curves.values()):
            panels.append(Panel(title, curves))
    if panels:
        save_chart(panels, 2, "PSNR to the exact result (dB), over rows", CHART)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["demo-text", "demo-class"])
    parser.add_argument("--samplers", nargs="+", default=["ddim", "dpmpp_2m"])
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--videos", type=int, default=6, help="videos of each point")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"comparisons": {}}
    if options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))
    results |= {"machine": describe_machine(options.device), "steps": STEPS, "videos": options.videos}
    for name in options.models:
        model = load(options.checkpoints / name, options.device, options.dtype).model
        for sampler in options.samplers:
            comparison = Comparison(model, sampler, options.videos, Path("build/speed-plans"))
            measured = results["comparisons"].setdefault(f"{name}, {sampler}", {})
            for point in comparison.points:
                if measured.get(point.name, {}).get("rows") != point.rows:
                    measured[point.name] = comparison.measure(point)
                    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
                    print(name, sampler, point.name, measured[point.name], flush=True)
    draw(results)


if __name__ == "__main__":
    main()
