"""The measures of the designs beside those of rendered videos, which are what the reader and the VAE allow at best.

    python -m training.designs.results --checkpoints build/designs/checkpoints --latents FOLDER

measures latents that were generated elsewhere.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.checkpoint.load import load_checkpoint
from training.designs.designs import DESIGNS, NUM_FRAMES
from training.designs.generate import Frames, decode_latents, evaluation_scenes
from training.designs.latent_files import load_latents
from training.designs.score import by_pace, measure_videos, processes, summarize, write_results
from training.evaluation.fast.distance import FeatureSpace
from training.loop import pick_device
from training.world.fast.renderer import render_fast
from training.world.fast.scenes import FastScenes, draw_fast_scenes

REFERENCE_SEED = 30_000_000
NUM_KEPT = 8


def rendered_frames(scenes: FastScenes) -> Frames:
    """Frames (N, T, S, S, 3) of uint8 RGB."""
    parts = [render_fast(scenes[start : start + 25], NUM_FRAMES) for start in range(0, len(scenes), 25)]
    frames: Frames = ((torch.cat(parts) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()
    return frames


def measure_designs(
    folders: Mapping[str, Path],
    latents: Mapping[str, Tensor],
    scenes: FastScenes,
    device: torch.device,
    workers: int,
    out: Path,
) -> None:
    """Write `results.json` and a few MP4s of each design into `out`.

    The features' space and the distances are those of rendered videos of other scenes, as many.
    """
    out.mkdir(parents=True, exist_ok=True)
    words = scenes.words()
    reference = draw_fast_scenes(len(scenes), REFERENCE_SEED).to(device)
    truth = rendered_frames(scenes.to(device))
    vae = load_checkpoint(next(iter(folders.values())), device).vae
    encoded = torch.cat([vae.encode(torch.from_numpy(video)) for video in truth])
    rows = {"rendered": truth, "rendered, through the VAE": None} | dict.fromkeys(folders)
    results = {}
    with processes(workers) as pool:
        real = np.stack([f for _, f in measure_videos(pool, rendered_frames(reference), reference.words())])
        space = FeatureSpace.of(real)
        for row, frames in rows.items():
            if frames is None:
                folder = folders.get(row, next(iter(folders.values())))
                frames = decode_latents(folder, latents.get(row, encoded), device)
            keep = out / row if row in folders else None
            measured = measure_videos(pool, frames, words, keep, NUM_KEPT)
            results[row] = by_pace(measured, words, lambda each: summarize(each, space, real))
            write_results(results, out / "results.json")
            line = ", ".join(f"{name} {value.value:.3f}" for name, value in results[row]["all"].items())
            print(f"{row}: {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="holds demo-h, demo-g and so on")
    parser.add_argument("--latents", type=Path, required=True, help="a folder with files latents-*.npz")
    parser.add_argument("--out", type=Path, default=Path("build/designs/results"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    latents: dict[str, Tensor] = {}
    for path in sorted(options.latents.glob("latents-*.npz")):
        latents |= load_latents(path)
    folders = {name: options.checkpoints / design.model for name, design in DESIGNS.items()}
    scenes = evaluation_scenes(len(next(iter(latents.values()))))
    measure_designs(folders, latents, scenes, pick_device(options.device), options.workers, options.out)


if __name__ == "__main__":
    main()
