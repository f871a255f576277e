"""Frames whose clean latents are known: a reference image, the end of a video to go on from.

The transformer predicts all frames. Before the sampler's update, its output for a known frame is replaced by the output
whose clean prediction is the known latent. Every sampler's table then works unchanged, and a known frame ends as given.

The transformer is given known frames as noisy as all others. One that was trained for it (`clean_known_frames` of its
config) is given them clean at every step, and so continues them more exactly.

B requests (1 for the frames of one request), T frames, C H W latent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.sampling.table import LATENT, MODEL_OUTPUT, PREDICTION


@dataclass(frozen=True)
class KnownFrames:
    """The frames that are known.

    Attributes:
        latents: (B, T, C, H, W) float32; frames that are not known may hold any finite numbers.
        is_known: (B, T) bool.
    """

    latents: Tensor
    is_known: Tensor

    @staticmethod
    def none(like: Tensor) -> "KnownFrames":
        """No known frames of videos that are `like` (B, T, C, H, W)."""
        return KnownFrames(torch.zeros_like(like), torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device))

    def to(self, device: torch.device) -> "KnownFrames":
        return KnownFrames(self.latents.to(device), self.is_known.to(device))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless these are some frames of one request, whose latents (T, C, H, W) have `shape`."""
        if tuple(self.latents.shape) != (1, *shape) or tuple(self.is_known.shape) != (1, shape[0]):
            raise ValueError(
                f"got known frames of shape {tuple(self.latents.shape)} with a mask of {tuple(self.is_known.shape)}: "
                f"this request needs {(1, *shape)} and {(1, shape[0])}"
            )
        if not self.latents.isfinite().all():
            raise ValueError("got known frames with NaN or infinity")
        if self.is_known.all():
            raise ValueError(f"got {shape[0]} known frames of {shape[0]}: at least one must be left to generate")

    def of(self, frames: slice) -> "KnownFrames":
        """Those of some `frames` of the video."""
        return KnownFrames(self.latents[:, frames], self.is_known[:, frames])

    def with_first(self, latents: Tensor) -> "KnownFrames":
        """These, and the first frames of the video, which have `latents` (B, t, C, H, W)."""
        rest = self.to(latents.device).of(slice(latents.shape[1], None))
        are_known = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        return KnownFrames(torch.cat([latents, rest.latents], dim=1), torch.cat([are_known, rest.is_known], dim=1))

    def show(self, latents: Tensor) -> Tensor:
        """`latents` (B, T, C, H, W) with the known frames clean."""
        return torch.where(self.is_known[..., None, None, None], self.latents, latents)

    def hold(self, output: Tensor, latents: Tensor, weights: Tensor) -> Tensor:
        """Replace the transformer's guided output (B, T, C, H, W) in the known frames.

        `latents` (B, T, C, H, W) are those of the sampler before the step, and `weights` (B, 4, 6) are the matrices of
        the step. Their prediction row is linear: clean = a * latent + b * output. So output = (clean - a * latent) / b.

        A step without rows (`models.sampling.speed_plan`) reads no output: b is 0, and the output stays. Its prediction
        follows from earlier ones, in which these frames are the known ones.
        """
        a, b = (weights[:, PREDICTION, column, None, None, None, None] for column in (LATENT, MODEL_OUTPUT))
        held = (self.latents - a * latents) / b
        return torch.where(self.is_known[..., None, None, None] & (b != 0), held, output)
