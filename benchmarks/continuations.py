"""References, edits, extensions and long videos of demo-text, judged on decoded MP4s by classical image processing.

    python -m benchmarks.continuations
    python -m benchmarks.continuations --device cuda

Each round makes a video at the card's defaults, extends it and edits it, and makes a video from a rendered image; every
fourth round makes one video of 32 and one of 64 frames. The result is written after each round.

A seam is judged by the mean absolute change from the frame before it, in levels of 0 to 255. Below 1.0 it cannot be
seen and passes. Above, the seam of an extension may be 1.5 times the median of all other changes of its video, and a
border of two windows twice the median of the 8 changes around it. Where the overlap begins, both frames are the
source's, so the change may be 1.5 times the source's own there. The figures "of the whole video" compare the largest
change at a seam with the median of all other changes, however small both are.

Shape legend: T frames, S pixels a side.
"""

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.parts.machine import describe_machine
from benchmarks.parts.seams import CHANGES_AROUND, Changes, frame_changes, seams
from jobs.videos.record import Reference, VideoRequest
from models.sampling.windows import Windows
from training.evaluation.mp4 import read_mp4
from training.evaluation.vision import Attributes, read_attributes
from training.world.prompts import canonical
from training.world.renderer import MARGIN, render
from training.world.scenes import COLORS, DIRECTIONS, Scene, draw_scenes
from worker.generate import make_video
from worker.library import Pipeline, load

Frames = NDArray[np.uint8]

RESULTS = Path("benchmarks/results")
FILES = {"cpu": "continuations.json", "cuda": "continuations-cuda.json"}
LONG_EVERY = 4
# Share of the source's speed that counts as going on, and the least frames of room in which that can be seen.
LEAST_SPEED, LEAST_ROOM = 0.3, 2
OVERLAP = 8
ADDED = 8


@dataclass
class Tally:
    """Results by bar: a list of True and False. The cost is seconds by number of frames: of the processor where it is
    the device, which other programs do not change, else of the clock."""

    device: str
    passed: dict[str, list[bool]] = field(default_factory=dict)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, is_passed: bool, what: str) -> None:
        self.passed.setdefault(name, []).append(is_passed)
        if not is_passed:
            self.failures.append(f"{name}: {what}")

    def report(self) -> dict[str, object]:
        cost = {frames: median(seconds) / frames for frames, seconds in self.seconds.items()}
        cost_name = "cpu_seconds_per_frame" if self.device == "cpu" else "seconds_per_frame"
        return {
            "share": {name: round(sum(all_) / len(all_), 3) for name, all_ in self.passed.items()},
            "videos": {name: len(all_) for name, all_ in self.passed.items()},
            cost_name: {str(frames): round(seconds, 4) for frames, seconds in cost.items()},
            "cost_per_frame_over_plain": {
                str(frames): round(seconds / cost[16], 2) for frames, seconds in cost.items() if 16 in cost
            },
            "failures": self.failures,
            **describe_machine(self.device),
        }


class Rounds:
    """Makes the videos and judges them. MP4s and frame strips stay in `folder`."""

    def __init__(self, pipeline: Pipeline, folder: Path, device: str) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self.tally = Tally(device)

    def run(self, number: int, scene: Scene, image: Frames) -> None:
        source = self._make(f"{number:02d}-source", canonical(scene), number)
        self._extend(number, scene, source)
        self._edit(number, scene, source)
        self._start_from(number, scene, image)
        if number % LONG_EVERY == 0:
            for num_frames in (32, 64):
                self._make_long(number, scene, num_frames)

    def _extend(self, number: int, scene: Scene, source: Frames) -> None:
        reference = Reference(use="extend", num_frames=len(source), overlap_frames=OVERLAP)
        name = f"{number:02d}-extension"
        video = self._make(name, canonical(scene), 1000 + number, source, reference, len(source) + ADDED)
        before, after = read_attributes(source), read_attributes(video[len(source) - 1 :])
        if before is None:
            return
        what = f"{name} {canonical(scene)}: {_short(before)} -> {_short(after)}"
        self.tally.add("extension: colour kept", after is not None and after.color == before.color, what)
        self.tally.add("extension: shape kept", after is not None and after.shape == before.shape, what)
        room = _frames_of_room(source, before) if before.motion in DIRECTIONS else 0
        if room >= LEAST_ROOM:
            part = read_attributes(video[len(source) - 1 : len(source) + room])
            speed, least = _speed(part, before, room) if part else 0.0, LEAST_SPEED * _speed(before, before, 15)
            numbers = f"{what}, {speed:.3f} against {least:.3f} in {room} frames"
            self.tally.add("extension: direction goes on while there is room", speed >= least, numbers)
        seam = [len(source) - OVERLAP, len(source)]
        bar = "extension: seam at most 1.5 x the median"
        self._judge_seams(bar, video, seam, 1.5, None, what, of_source=frame_changes(source))

    def _edit(self, number: int, scene: Scene, source: Frames) -> None:
        before = read_attributes(source)
        if before is None:
            return
        new_color = list(COLORS)[(list(COLORS).index(scene.color) + 1 + number % (len(COLORS) - 1)) % len(COLORS)]
        name, prompt = f"{number:02d}-edit", canonical(replace(scene, color=new_color))
        reference = Reference(use="edit", num_frames=len(source), strength=0.6)
        video = self._make(name, prompt, 2000 + number, source, reference)
        after = read_attributes(video)
        what = f"{name} {prompt}: {_short(before)} -> {_short(after)}"
        self.tally.add("edit: new colour", after is not None and after.color == new_color, what)
        if before.motion in DIRECTIONS:
            self.tally.add("edit: direction kept", after is not None and after.motion == before.motion, what)

    def _start_from(self, number: int, scene: Scene, image: Frames) -> None:
        name = f"{number:02d}-image"
        video = self._make(name, canonical(scene), 3000 + number, image, Reference(use="first", num_frames=1))
        psnr = _psnr(video[0], image[0])
        seen = read_attributes(video)
        what = f"{name} {canonical(scene)}: {psnr:.1f} dB, {_short(seen)}"
        self.tally.add("image: first frame at 30 dB or more", psnr >= 30, what)
        self.tally.add("image: motion right", seen is not None and seen.matches(scene)["motion"], what)

    def _make_long(self, number: int, scene: Scene, num_frames: int) -> None:
        name = f"{number:02d}-long-{num_frames}"
        video = self._make(name, canonical(scene), 4000 + number, num_frames=num_frames)
        starts = Windows.of(num_frames, 16).starts
        borders = sorted({*starts[1:], *(start + 16 for start in starts[:-1])})
        parts = [read_attributes(video[start : start + 16]) for start in range(0, num_frames, 16)]
        what = f"{name} {canonical(scene)}: {'; '.join(map(_short, parts))}"
        looks = {(part.color, part.shape) if part else None for part in parts}
        self.tally.add(f"{num_frames} frames: colour and shape constant", len(looks) == 1 and None not in looks, what)
        bar = f"{num_frames} frames: borders at most 2 x the median"
        self._judge_seams(bar, video, borders, 2.0, CHANGES_AROUND, what)

    def _judge_seams(
        self,
        bar: str,
        video: Frames,
        places: Sequence[int],
        most: float,
        around: int | None,
        what: str,
        of_source: Changes | None = None,
    ) -> None:
        changes = frame_changes(video)
        rough = [seam for seam in seams(changes, places, around, of_source) if not seam.is_smooth(most)]
        self.tally.add(bar, not rough, f"{what}, {', '.join(map(str, rough))}")
        of_all = seams(changes, places)
        worst = max(of_all, key=lambda seam: seam.change)
        is_smooth = all(seam.is_smooth(most, visible_levels=0.0) for seam in of_all)
        self.tally.add(f"{bar} of the whole video", is_smooth, f"{what}, {worst}")

    def _make(
        self,
        name: str,
        prompt: str,
        seed: int,
        frames: Frames | None = None,
        reference: Reference | None = None,
        num_frames: int = 16,
    ) -> Frames:
        card = self._pipeline.card
        request = VideoRequest(
            model=card.id,
            prompt=prompt,
            negative_prompt=card.negative_prompt,
            seed=seed,
            num_frames=num_frames,
            fps=card.fps,
            height=card.height,
            width=card.width,
            num_inference_steps=card.num_inference_steps,
            guidance_scale=card.guidance_scale,
            sampler=card.sampler,
            reference=reference,
        )
        path = self._folder / f"{name}.mp4"
        started = self._clock()
        make_video(request, self._pipeline.model, path, reference=frames)
        if reference is None:
            self.tally.seconds.setdefault(num_frames, []).append(self._clock() - started)
        video = read_mp4(path)
        Image.fromarray(np.concatenate(list(video), axis=1)).save(path.with_suffix(".png"))
        return video


def _speed(seen: Attributes, direction: Attributes, num_changes: int) -> float:
    """Displacement a frame along the motion of `direction`."""
    axis = np.array(direction.displacement) / np.linalg.norm(direction.displacement)
    return float(axis @ np.array(seen.displacement)) / num_changes


def _frames_of_room(source: Frames, seen: Attributes) -> int:
    """How many of the frames that are added the shape can go on at its speed, up to the margin at which shapes of the
    demo world come to rest."""
    last = np.abs(source[-1].astype(float) - np.median(source[-1, :2].reshape(-1, 3), axis=0)).sum(axis=-1) > 60
    rows, columns = np.nonzero(last)
    if not len(rows):
        return 0
    size, margin = source.shape[1], MARGIN * source.shape[1] / 2
    horizontal, vertical = (shift / 15 * size for shift in seen.displacement)
    rooms = [
        ((places.min() if shift < 0 else size - 1 - places.max()) - margin) / max(abs(shift), 1e-3)
        for places, shift in ((columns, horizontal), (rows, vertical))
    ]
    return int(max(0.0, min(*rooms, ADDED)))


def _psnr(frame: Frames, reference: Frames) -> float:
    error = ((frame.astype(np.float64) - reference) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _short(seen: Attributes | None) -> str:
    return f"{seen.color} {seen.shape} {seen.motion}" if seen else "nothing"


def scenes_and_images(count: int) -> Iterable[tuple[Scene, Frames]]:
    scenes = draw_scenes(count, seed=12)
    images = ((render(scenes, num_frames=16)[:, :1] + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return zip(scenes.words(), images, strict=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/demo-text"))
    parser.add_argument("--number", type=int, default=40, help="rounds")
    parser.add_argument("--videos", type=Path, default=Path("build/continuations"), help="folder of the MP4s")
    parser.add_argument("--device", choices=FILES, default="cpu")
    options = parser.parse_args(arguments)
    results = RESULTS / FILES[options.device]
    options.videos.mkdir(parents=True, exist_ok=True)
    rounds = Rounds(load(options.checkpoint, options.device), options.videos, options.device)
    for number, (scene, image) in enumerate(scenes_and_images(options.number)):
        rounds.run(number, scene, image)
        results.write_text(json.dumps(rounds.tally.report(), indent=2) + "\n", encoding="utf-8")
    print(results.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
