"""Evaluation of a demo checkpoint: videos at the card's defaults, written as MP4, decoded, and read by `vision`."""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from jobs.cards import ModelCard, read_card
from models.checkpoint.load import Checkpoint, load_checkpoint
from models.generate import Generation, denoise
from training.evaluation.mp4 import read_mp4
from training.evaluation.tasks import Task, class_tasks, text_tasks
from training.evaluation.vision import Attributes, read_attributes, read_shapes
from training.loop import pick_device
from training.world.scenes import DIRECTIONS
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4

COLUMNS = ("color", "shape", "direction", "other motion", "background", "size", "points kept")


@dataclass(frozen=True)
class Result:
    """One video: which of the task's attributes are right, and how long it took from request to MP4.

    `points_kept` is whether a shape that is to spin has the same number of points in all frames.
    """

    task: Task
    seen: Attributes | None
    seconds: float
    points_kept: bool | None = None

    def right(self) -> dict[str, bool]:
        """By column of the table. A video in which nothing is to be seen is wrong in everything."""
        matches = self.seen.matches(self.task.scene) if self.seen else {}
        motion = "direction" if self.task.scene.motion in DIRECTIONS else "other motion"
        names = {name: motion if name == "motion" else name for name in self.task.scored}
        right = {column: matches.get(name, False) for name, column in names.items()}
        return right if self.points_kept is None else right | {"points kept": self.points_kept}


def generate(checkpoint: Checkpoint, card: ModelCard, task: Task, seed: int, path: Path) -> None:
    """Write the video of `task` to `path` with the card's defaults."""
    condition = checkpoint.condition(task.prompt, task.label)
    generation = Generation(
        seed=seed,
        num_inference_steps=card.num_inference_steps,
        guidance_scale=card.guidance_scale,
        sampler=card.sampler,
        num_frames=card.num_frames,
        condition=condition,
        negative=checkpoint.negative(card.negative_prompt, condition) if card.guidance_scale != 1 else None,
    )
    latents = denoise(checkpoint.transformer, checkpoint.schedule, generation)
    write_mp4(checkpoint.vae.decode(latents).numpy(), path, Encoding(card.fps))


def evaluate(checkpoint: Checkpoint, card: ModelCard, tasks: Sequence[Task], videos: Path) -> list[Result]:
    """Generate every task with its number as seed, and read the decoded MP4s, which stay in `videos`."""
    videos.mkdir(parents=True, exist_ok=True)
    results = []
    progress = tqdm(tasks, desc=card.id, unit="video")
    for seed, task in enumerate(progress):
        path = videos / f"{seed:03d}.mp4"
        started = time.perf_counter()
        generate(checkpoint, card, task, seed, path)
        seconds = time.perf_counter() - started
        frames = read_mp4(path)
        points_kept = len(set(read_shapes(frames))) == 1 if task.scene.motion == "spinning" else None
        results.append(Result(task, read_attributes(frames), seconds, points_kept))
        progress.set_postfix_str(" ".join(f"{name} {share:.0%}" for name, share in shares(results).items()))
    return results


def shares(results: Iterable[Result]) -> dict[str, float]:
    """The share of videos in which each column is right, for the columns that any of them is scored on."""
    marks = [result.right() for result in results]
    scored = {column: [mark[column] for mark in marks if column in mark] for column in COLUMNS}
    return {column: sum(rights) / len(rights) for column, rights in scored.items() if rights}


def table(results: Sequence[Result]) -> str:
    """The results by group as a table in Markdown."""
    members = {group: [result for result in results if group in result.task.groups] for group in _groups(results)}
    columns = list(shares(results))
    lines = ["| | videos | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for group, rows in members.items():
        cells = shares(rows)
        values = " | ".join(f"{100 * cells[column]:.1f} %" if column in cells else "" for column in columns)
        lines.append(f"| {group} | {len(rows)} | {values} |")
    return "\n".join(lines)


def report(card: ModelCard, results: Sequence[Result], device: torch.device) -> dict[str, object]:
    seconds = sorted(result.seconds for result in results)
    wrong = [result for result in results if not all(result.right().values())]
    settings = card.model_dump(include={"id", "num_inference_steps", "guidance_scale", "sampler", "num_frames"})
    return {
        **settings,
        "device": str(device),
        "torch_threads": torch.get_num_threads(),
        "videos": len(results),
        "seconds_median": round(seconds[len(seconds) // 2], 2),
        "seconds_worst": round(seconds[-1], 2),
        "groups": {group: shares(r for r in results if group in r.task.groups) for group in _groups(results)},
        "wrong": [{"asked": asdict(each.task), "seen": each.seen and asdict(each.seen)} for each in wrong],
    }


def _groups(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(group for result in results for group in result.task.groups))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint folder")
    parser.add_argument("--out", type=Path, default=None, help="the report; default build/training/evaluate-ID.json")
    parser.add_argument("--videos", type=Path, default=None, help="keep the MP4s in this folder")
    parser.add_argument("--number", type=int, default=200, help="how many videos")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=None, help="denoising steps instead of the card's")
    parser.add_argument("--guidance-scale", type=float, default=None, help="guidance instead of the card's")
    parser.add_argument("--sampler", default=None, help="sampler instead of the card's")
    options = parser.parse_args(arguments)
    device = pick_device(options.device)
    checkpoint, card = load_checkpoint(options.checkpoint, device), read_card(options.checkpoint)
    chosen = {
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "sampler": options.sampler,
    }
    card = card.model_copy(update={name: value for name, value in chosen.items() if value is not None})
    tasks = class_tasks(options.number) if card.conditioning == "class" else text_tasks(options.number)
    with tempfile.TemporaryDirectory() as temporary:
        results = evaluate(checkpoint, card, tasks, options.videos or Path(temporary))
    out = options.out or Path("build/training") / f"evaluate-{card.id}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    summary = report(card, results, device)
    out.write_text(json.dumps(summary, indent=2) + "\n")
    print(table(results))
    print(f"{summary['seconds_median']} s a video (worst {summary['seconds_worst']} s) on {device}; {out}")


if __name__ == "__main__":
    main()
