"""Videos a minute through HTTP: denoising, decoding, encoding and storing included.

    python -m benchmarks.videos [--design hybrid] [--size XL] [--steps 50] [--videos 48] [--concurrency 16]

`framedit serve` runs with a model of a published size and a VAE of Stable Diffusion's sizes, both with random weights:
the frames are noise, which is the most that an encoder can get. Guided requests of 16 frames of 256 x 256 keep a number
of them in progress. The rate is that of the middle of the load: from the first video that ends to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.models import DESIGNS, IMAGE_SIZE, NUM_CLASSES, NUM_FRAMES
from benchmarks.parts.machine import describe_machine
from cli.bench.arrivals import Concurrent
from cli.bench.load import Limits, Load
from cli.bench.workload import Workload
from cli.client.api_client import Client
from jobs.cards import ModelCard, write_card
from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.save import save_checkpoint
from models.registry import SIZES, published_model
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer
from models.vae import VideoDecoder

RESULTS = Path(__file__).parent / "results"
VAE = AutoencoderConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)
START_SECONDS = 300
MODEL = "bench"


def write_checkpoint(folder: Path, design: str, size: str, depth: int | None, steps: int) -> None:
    torch.manual_seed(0)
    name = DESIGNS[design].format(size=size)
    config = published_model(name, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES).config
    config = replace(config, depth=depth or config.depth)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        transformer = Transformer(config).requires_grad_(False)
    for parameter in transformer.parameters():  # fresh ones start as the identity
        torch.nn.init.normal_(parameter, std=0.02)
    folder.mkdir(parents=True)
    settings = CheckpointConfig(config, NoiseSchedule(), scaling_factor=0.18215)
    vae = VideoDecoder(Autoencoder(VAE), settings.scaling_factor)
    save_checkpoint(folder, settings, transformer.state_dict(), vae, None, torch.bfloat16)
    card = ModelCard(
        id=MODEL,
        conditioning="class",
        class_names=[str(number) for number in range(NUM_CLASSES)],
        num_frames=NUM_FRAMES,
        max_frames=NUM_FRAMES,
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        fps=8,
        num_inference_steps=steps,
        guidance_scale=4.0,
        sampler="ddim",
        samplers=["ddim"],
    )
    write_card(folder, card)


@contextmanager
def serving(checkpoints: Path, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `framedit serve` on a free port, and yield its address. Raises RuntimeError when it does not start."""
    log = folder / "serve.log"
    arguments = ("serve", "--port", "0", "--data-dir", str(folder / "data"), "--checkpoints", str(checkpoints))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.main", *arguments], env=environment, stdout=output, stderr=output
        )
    try:
        yield _wait_for_address(process, log)
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"FrameDiT server on (http://\S+)", log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


def measure(server: str, videos: int, concurrency: int) -> dict[str, Any]:
    """Raises RuntimeError when a video fails, or when the model does not appear."""
    client = Client(server)
    started = time.monotonic()
    deadline = time.monotonic() + START_SECONDS
    while not client.models():
        if time.monotonic() > deadline:
            raise RuntimeError("no worker serves the model")
        time.sleep(0.5)
    workload = Workload(MODEL, [{"class_label": number} for number in range(NUM_CLASSES)])
    print(f"the model is served after {time.monotonic() - started:.0f} s", flush=True)
    Load(client, workload, Concurrent(concurrency), Limits(concurrency)).run()  # captures the graphs
    print(f"the warm-up ends after {time.monotonic() - started:.0f} s", flush=True)
    samples = Load(client, workload, Concurrent(concurrency), Limits(videos), delete=False).run()
    if failed := [sample for sample in samples if sample.outcome != "completed"]:
        raise RuntimeError(f"{len(failed)} of {videos} videos failed: {failed[0].error}")
    ends = sorted(sample.sent_at + (sample.done_s or 0.0) for sample in samples)
    timings = [video["timings"] for video in client.videos(videos)]
    return {
        "videos": videos,
        "concurrency": concurrency,
        "videos_a_minute": round(60 * (len(ends) - 1) / (ends[-1] - ends[0]), 1),
        "seconds_in_all": round(ends[-1], 2),
        "median_done_s": round(median(sample.done_s or 0.0 for sample in samples), 2),
        **{f"median_{name}": round(median(each[name] for each in timings), 4) for name in ("decode_s", "encode_s")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", choices=DESIGNS, default="hybrid")
    parser.add_argument("--size", choices=SIZES, default="XL")
    parser.add_argument("--depth", type=int, default=None, help="default: that of the size")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--fast", choices=["auto", "off"], default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS / "videos.json")
    options = parser.parse_args(arguments)
    machine = describe_machine("cuda" if torch.cuda.is_available() else "cpu")
    settings = {"FRAMEDIT_FAST": options.fast, "PYTHONPATH": str(Path(__file__).parents[1])}
    if path := os.environ.get("PYTHONPATH"):
        settings["PYTHONPATH"] += os.pathsep + path
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "checkpoints" / MODEL, options.design, options.size, options.depth, options.steps)
        print("the checkpoint is written", flush=True)
        with serving(folder / "checkpoints", folder, dict(os.environ) | settings) as server:
            row = measure(server, options.videos, options.concurrency)
    row = {"model": DESIGNS[options.design].format(size=options.size), "steps": options.steps, **row}
    print(" ".join(f"{key}={value}" for key, value in row.items()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, "rows": [row]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
