"""The data of diffusion training: videos of random scenes, rendered and encoded once.

Shape legend: N videos, T frames, C latent channels, h latent side, A attributes.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from models.autoencoder.autoencoder import Autoencoder
from models.checkpoint.vae import load_vae
from training.loop import autocast, pick_device
from training.world.renderer import render_at
from training.world.scenes import ATTRIBUTES, DIRECTIONS, MOTIONS, Scene, Scenes, Split, draw_scenes

_SEED_STRIDE = 1_000_003
# The time at which a video begins that goes on from the last 8 of 16 frames.
EXTENSION = 8 / 15
# Some videos begin later in their motion, and show how it ends: extensions and the windows of long videos do.
# Shares of the videos that begin later, and between which times.
LATER_STARTS = ((0.20, EXTENSION, EXTENSION), (0.10, 0.0, EXTENSION), (0.06, EXTENSION, 2.0))
# Spinning has no end.
SPINNING_STARTS = ((0.20, EXTENSION, EXTENSION), (0.30, 0.0, 4.0))
# So many of the videos that begin at EXTENSION or later need not go on from known frames.
FREE_SHARE, FREE_SPINNING_SHARE = 0.1, 0.35


@dataclass(frozen=True)
class LatentDataset:
    """`latents` (N, T, C, h, h) float16, scaled as the diffusion model sees them; `scenes` (N, A) int64; `continues`
    (N,) bool, whether the video is only shown as one that goes on from known frames."""

    latents: Tensor
    scenes: Tensor
    continues: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def scene(self, index: int) -> Scene:
        return Scene.from_row(self.scenes[index].tolist())

    def showing(self, motions: Sequence[str]) -> "LatentDataset":
        """Only the videos whose scene has one of the motions."""
        wanted = torch.tensor([MOTIONS.index(motion) for motion in motions], device=self.scenes.device)
        kept = torch.isin(self.scenes[:, ATTRIBUTES.index("motion")], wanted)
        return LatentDataset(self.latents[kept], self.scenes[kept], self.continues[kept])

    def to(self, device: torch.device | str) -> "LatentDataset":
        return LatentDataset(self.latents.to(device), self.scenes.to(device), self.continues.to(device))

    def save(self, path: Path) -> None:
        temporary = path.with_suffix(".part")
        save_file({name: tensor.cpu().contiguous() for name, tensor in vars(self).items()}, temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "LatentDataset":
        return cls(**load_file(path))


@torch.no_grad()
def encode_scenes(
    vae: Autoencoder,
    num_videos: int,
    seed: int,
    *,
    motions: Sequence[str] = MOTIONS,
    split: Split = Split.TRAINING,
    num_frames: int = 16,
    batch: int = 32,
) -> LatentDataset:
    """Render and encode `num_videos` random scenes on the VAE's device, where the result stays.

    The same seed and batch give the same scenes on every device. Latents are the posterior's mean times the VAE's
    `scaling_factor`.
    """
    latents, rows, continuing = [], [], []
    for start in tqdm(range(0, num_videos, batch), desc="encoding", unit="batch"):
        drawn = draw_scenes(min(batch, num_videos - start), seed * _SEED_STRIDE + start, split, motions)
        starts, continues = draw_starts(drawn, seed * _SEED_STRIDE + start)
        times = starts[:, None] + torch.linspace(0, 1, num_frames)
        frames = render_at(drawn.to(vae.device), times.to(vae.device)).flatten(0, 1)
        with autocast(vae.device):
            encoded = vae.encode(frames).mean
        latents.append((encoded * vae.config.scaling_factor).half().view(-1, num_frames, *encoded.shape[1:]))
        rows.append(drawn.attributes)
        continuing.append(continues)
    return LatentDataset(torch.cat(latents), torch.cat(rows).to(vae.device), torch.cat(continuing).to(vae.device))


def draw_starts(scenes: Scenes, seed: int) -> tuple[Tensor, Tensor]:
    """The time of the first frame of each scene (B,), and whether the video goes on from known frames (B,)."""
    generator = torch.Generator().manual_seed(seed)
    choice, place, freedom = torch.rand(3, len(scenes), generator=generator)
    spins = scenes.attributes[:, ATTRIBUTES.index("motion")] == MOTIONS.index("spinning")
    starts = torch.where(spins, _place(SPINNING_STARTS, choice, place), _place(LATER_STARTS, choice, place))
    is_free = freedom < torch.where(spins, FREE_SPINNING_SHARE, FREE_SHARE)
    return starts, (starts >= EXTENSION) & ~is_free


def _place(table: Sequence[tuple[float, float, float]], choice: Tensor, place: Tensor) -> Tensor:
    """Starts (B,): by `choice`, between the times of a row of `table`, or 0."""
    starts, below = torch.zeros_like(place), 0.0
    for share, first, last in table:
        chosen = (choice >= below) & (choice < below + share)
        starts = torch.where(chosen, first + place * (last - first), starts)
        below += share
    return starts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, default=Path("build/training/vae/vae"))
    parser.add_argument("--out", type=Path, default=Path("build/training/latents.safetensors"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--videos", type=int, default=140_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directions-only", action="store_true", help="only scenes that move, as demo-class needs")
    parser.add_argument(
        "--more", nargs="*", default=[], choices=MOTIONS, help="motions of which there are twice as many videos"
    )
    options = parser.parse_args(arguments)
    vae = load_vae(options.vae, torch.float32).to(pick_device(options.device))
    motions = (*(DIRECTIONS if options.directions_only else MOTIONS), *options.more)
    dataset = encode_scenes(vae, options.videos, options.seed, motions=motions, batch=options.batch)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    dataset.save(options.out)
    values = dataset.latents.float()
    print(json.dumps({"videos": len(dataset), "mean": values.mean().item(), "std": values.std().item()}))


if __name__ == "__main__":
    main()
