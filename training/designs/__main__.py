"""`python -m training.designs`: train the text encoder, the VAE and the four designs, then measure their videos.

The command ends within `--minutes` and goes on where the last one stopped. With `--last`, the learning rate falls to
its end and everything is measured. Small copies of all that is needed later are written to `--out`.
"""

import argparse
import importlib.util
import json
import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from models.checkpoint.vae import load_vae
from training.designs import text
from training.designs.designs import DESIGNS
from training.designs.generate import evaluation_scenes, generate_latents
from training.designs.latent_files import save_latents
from training.designs.package import NUM_STEPS, package
from training.designs.passes import measure_passes
from training.designs.train import Training, TrainingSettings
from training.designs.videos import encode_videos, prompt_conditions, train_vae
from training.loop import pick_device

# Seconds that the end of a call needs: for each generated video, and for the rest.
SECONDS_PER_VIDEO, SECONDS_PER_MEASURED_VIDEO, SECONDS_AT_THE_END = 0.03, 0.09, 60.0
REST = "rest.zip"


@dataclass(frozen=True)
class Sizes:
    """How much of everything: the recipe's numbers, or a little of each to see that it runs."""

    text_steps: int
    text_batch: int
    text_measured: int
    vae_steps: int
    vae_batch: int
    vae_frames_measured: int
    videos: int
    batch: int
    inference_steps: int
    pass_frames: tuple[int, ...]
    pass_repeats: int


RECIPE = Sizes(1500, 96, 2000, 2500, 192, 1024, 49_152, 192, NUM_STEPS, (16, 32, 64, 128), 21)
QUICK = Sizes(1, 2, 2, 1, 4, 8, 4, 2, 2, (4, 8), 1)


class Clock:
    """Seconds since the command started, printed before every message."""

    def __init__(self, minutes: float) -> None:
        self._started = time.monotonic()
        self._seconds = minutes * 60

    def left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def say(self, message: str) -> None:
        print(f"[{time.monotonic() - self._started:5.0f} s] {message}", flush=True)


def can_encode() -> bool:
    """Whether MP4s can be written and read on this machine."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def train_designs(options: argparse.Namespace, sizes: Sizes, clock: Clock, device: torch.device) -> Training:
    """Text encoder, VAE, encoded videos and the four trainings, until the end of the call has to begin."""
    work: Path = options.work
    if not (work / "text" / "report.json").exists():
        read = text.run(work / "text", device, sizes.text_steps, sizes.text_batch, sizes.text_measured)
        clock.say(f"text encoder: {read}")
    if not (work / "vae" / "report.json").exists():
        report = train_vae(work / "vae", device, sizes.vae_steps, sizes.vae_batch, sizes.vae_frames_measured)
        clock.say(f"VAE: {report}")
    vae = load_vae(work / "vae" / "vae", torch.float32).to(device)
    videos = encode_videos(vae, sizes.videos, seed=0)
    values = videos.latents[:1024].float()
    clock.say(f"{len(videos):,} videos, latents of mean {values.mean():.3f} and deviation {values.std():.3f}")
    condition_of = prompt_conditions(videos, work / "text", wordings=2)
    clock.say("prompts are encoded")
    end = SECONDS_AT_THE_END + 4 * options.videos * (SECONDS_PER_VIDEO + can_encode() * SECONDS_PER_MEASURED_VIDEO)
    seconds = clock.left() - end if options.train_seconds is None else options.train_seconds
    settings = TrainingSettings(
        work / "state", seconds, options.last, batch=sizes.batch, learning_rate=options.learning_rate
    )
    training = Training(settings, device, compiled=device.type == "cuda" and not options.eager)
    if options.start_from is not None and training.step == 0:
        training.start_from(options.start_from)
    clock.say(f"training for {seconds:.0f} s")
    training.run(videos, condition_of)
    clock.say(f"step {training.step:,}: {training.step * sizes.batch:,} samples for each design")
    return training


def finish(options: argparse.Namespace, sizes: Sizes, clock: Clock, device: torch.device, training: Training) -> None:
    """Write `--out`: weights, checkpoints' parts, videos or their measures, and times of passes."""
    out, work = options.out, options.work
    out.mkdir(parents=True, exist_ok=True)
    training.export(out)
    folders = {}
    for trainee in training.trainees:
        folders[trainee.name] = work / "checkpoints" / f"{DESIGNS[trainee.name].model}-{training.step}"
        if not folders[trainee.name].exists():
            weights = trainee.weights()
            package(DESIGNS[trainee.name], weights, work / "vae" / "vae", work / "text", folders[trainee.name])
    torch.cuda.empty_cache()
    clock.say("weights are written")
    pack(out, work)
    scenes = evaluation_scenes(options.videos)
    latents = {}
    for name, folder in folders.items():
        latents[name] = generate_latents(folder, scenes, device, num_steps=sizes.inference_steps)
        clock.say(f"{name}: {len(scenes)} videos are generated")
    if can_encode():
        from training.designs.results import measure_designs  # needs the encoder

        measure_designs(folders, latents, scenes, device, options.workers, work / "results")
        clock.say("videos are measured")
    else:
        names = list(latents)
        for half in (names[:2], names[2:]):
            save_latents({name: latents[name] for name in half}, out / f"latents-{'-'.join(half)}.npz")
        clock.say("no ffmpeg here: latents are written, to be measured with `python -m training.designs.results`")
    pack(out, work)
    if options.last:
        torch.set_num_threads(min(4, os.cpu_count() or 1))
        devices = dict.fromkeys([torch.device("cpu"), device])
        measured = [
            asdict(each) for on in devices for each in measure_passes(on, sizes.pass_repeats, sizes.pass_frames)
        ]
        (work / "results").mkdir(parents=True, exist_ok=True)
        (work / "results" / "passes.json").write_text(json.dumps(measured, indent=1) + "\n")
        pack(out, work)
    clock.say("done")


def pack(out: Path, work: Path) -> None:
    """All that is needed beside the weights in one archive: text encoder, VAE, logs, measures."""
    with zipfile.ZipFile(out / REST, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, pattern in (("state", "*.jsonl"), ("text", "**/*"), ("vae", "**/*"), ("results", "**/*")):
            for path in sorted((work / folder).glob(pattern)):
                if path.is_file() and path.name != "state.pt":
                    archive.write(path, path.relative_to(work))


def unpack(out: Path, work: Path) -> None:
    """The archive of an earlier `out` into a new `work`: its weights are of use with its text encoder and VAE alone."""
    with zipfile.ZipFile(out / REST) as archive:
        archive.extractall(work)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.designs", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="the command ends within this time")
    parser.add_argument("--last", action="store_true", help="let the learning rate fall, and time the passes")
    parser.add_argument("--out", type=Path, default=Path("build/designs/out"), help="for the small copies")
    parser.add_argument("--work", type=Path, default=Path("build/designs"), help="where the work is kept")
    parser.add_argument("--start-from", type=Path, default=None, help="an earlier `--out`, where `--work` is gone")
    parser.add_argument("--videos", type=int, default=500, help="how many each design generates at the end")
    parser.add_argument("--train-seconds", type=float, default=None, help="train so long, whatever the minutes are")
    parser.add_argument("--learning-rate", type=float, default=TrainingSettings.learning_rate)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that measure videos")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--eager", action="store_true", help="do not compile the models on a GPU")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    options = parser.parse_args(arguments)
    clock, device = Clock(options.minutes), pick_device(options.device)
    sizes = QUICK if options.quick else RECIPE
    if options.start_from is not None and not options.work.exists():
        unpack(options.start_from, options.work)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    training = train_designs(options, sizes, clock, device)
    finish(options, sizes, clock, device, training)


if __name__ == "__main__":
    main()
