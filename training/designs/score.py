"""Scores of the designs' videos, from MP4s that are written and decoded again, in one process per core."""

import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.designs.generate import Frames
from training.evaluation.fast.distance import FeatureSpace, frechet_distance, motion_energy
from training.evaluation.fast.intervals import Estimate, bootstrap, mean, share
from training.evaluation.fast.scores import ATTRIBUTES, Score, score_video
from training.evaluation.mp4 import read_mp4
from training.world.fast.scenes import FastScene
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4

Array = NDArray[np.float64]
Measured = tuple[Score, Array]

MOVING_PICTURE_FPS = 8


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """So many processes, each with one thread. They are new ones: a copy of this one could not use its GPU."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def measure_videos(
    pool: Executor, videos: Frames, scenes: Sequence[FastScene], keep: Path | None = None, num_kept: int = 0
) -> list[Measured]:
    """The score and the features of each video (T, S, S, 3). The first `num_kept` MP4s stay in the folder `keep`."""
    paths = [None if keep is None or index >= num_kept else keep / f"{index:03d}.mp4" for index in range(len(videos))]
    return list(pool.map(_measure, videos, scenes, paths, chunksize=4))


def _measure(frames: Frames, scene: FastScene, keep: Path | None) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = keep or Path(folder) / "video.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(frames, path, Encoding(MOVING_PICTURE_FPS))
        decoded = read_mp4(path)
    return score_video(decoded, scene), motion_energy(decoded)


def summarize(measured: Sequence[Measured], space: FeatureSpace, real: Array) -> dict[str, Estimate]:
    """Every measure of one design with its 95 % interval. `real` are the features of rendered videos."""
    scores = [score for score, _ in measured]
    attributes = {name: mean([score.right[name] for score in scores if name in score.right]) for name in ATTRIBUTES}
    spreads = [score.speed_spread for score in scores if score.speed_spread is not None]
    errors = np.array([score.position_error_pixels for score in scores])
    projected, true = space.project(np.stack([features for _, features in measured])), space.project(real)
    return {
        **attributes,
        "all attributes": share([all(value == 1 for value in score.right.values()) for score in scores]),
        "identity kept": share([score.identity for score in scores if score.identity is not None]),
        "median position error in pixels": bootstrap(errors, lambda rows: float(np.median(rows))),
        "on a legal path": share([score.followed for score in scores]),
        "median spread of the speed": bootstrap(np.array(spreads), lambda rows: float(np.median(rows))),
        "Fréchet distance": bootstrap(projected, lambda rows: frechet_distance(rows, true)),
    }


def by_pace(
    measured: Sequence[Measured],
    scenes: Sequence[FastScene],
    summary: Callable[[Sequence[Measured]], dict[str, Estimate]],
) -> dict[str, dict[str, Estimate]]:
    """The summary of all videos, and of those of each pace."""
    groups = {"all": list(measured)}
    for pace in dict.fromkeys(scene.pace for scene in scenes):
        groups[pace] = [each for each, scene in zip(measured, scenes, strict=True) if scene.pace == pace]
    return {name: summary(each) for name, each in groups.items()}


def write_results(results: dict[str, dict[str, dict[str, Estimate]]], out: Path) -> None:
    """As JSON: row (a design, or the rendered truth), pace, measure, estimate."""
    plain = {
        row: {pace: {name: asdict(value) for name, value in measures.items()} for pace, measures in paces.items()}
        for row, paces in results.items()
    }
    out.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
