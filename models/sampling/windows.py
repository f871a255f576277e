"""Videos longer than the model was trained for: overlapping windows of the trained length.

They are made in turn (`models.generate`), or at once. At once, each window is a row of the transformer's batch (two
with guidance). Predictions of a frame that several windows hold are averaged at every step with triangular weights
(MultiDiffusion, Bar-Tal et al. 2023): a window counts most in its middle. The start noise of later windows is that of
the first one, its frames shuffled (FreeNoise, Qiu et al. 2024), so that all windows begin from the same content.

W windows, L frames a window, T frames in all, C H W latent.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Where the windows of a video lie. A video of at most the trained length has one, which is the video itself.

    Attributes:
        num_frames: T.
        length: L, the frames of a window.
        stride: frames from one window's start to the next one's; the last window ends with the video, so it may
            start earlier.
    """

    num_frames: int
    length: int
    stride: int

    @staticmethod
    def of(num_frames: int, trained_length: int, stride: int | None = None) -> "Windows":
        """The windows of `num_frames` frames; `stride` is half of the trained length unless given.

        Raises ValueError for fewer than one frame, and for a stride that leaves gaps or does not move.
        """
        stride = max(1, trained_length // 2) if stride is None else stride
        if num_frames < 1:
            raise ValueError(f"got {num_frames} frames: a video has at least 1")
        if not 1 <= stride <= trained_length:
            raise ValueError(f"got a window stride of {stride}: allowed are 1 to {trained_length}")
        return Windows(num_frames, min(num_frames, trained_length), stride)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first frame of each window."""
        last = self.num_frames - self.length
        return (*range(0, last, self.stride), last)

    def __len__(self) -> int:
        """W."""
        return len(self.starts)

    def cut(self, video: Tensor) -> Tensor:
        """(1, T, C, H, W) -> (W, L, C, H, W)."""
        return torch.cat([video[:, start : start + self.length] for start in self.starts])

    def average(self, windows: Tensor) -> Tensor:
        """(W, L, C, H, W) -> (1, T, C, H, W). With one window, the window exactly as it is."""
        if len(self) == 1:
            return windows
        weights = self._weights.to(windows.device)
        total = windows.new_zeros(1, self.num_frames, *windows.shape[2:])
        # One window after the other, so that sums are rounded in the same order on every device and in every batch.
        for start, window, weight in zip(self.starts, windows, weights, strict=True):
            total[0, start : start + self.length] += weight.view(-1, 1, 1, 1) * window
        return total

    def spread_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """(1, L, C, H, W) noise of the first window -> (1, T, C, H, W): later frames repeat it in shuffled order."""
        if len(self) == 1:
            return noise
        order = list(range(self.length))
        while len(order) < self.num_frames:
            block = order[len(order) - self.length :][: self.stride]
            order += [block[i] for i in torch.randperm(len(block), generator=generator).tolist()]
        return noise[:, order[: self.num_frames]]

    @cached_property
    def _weights(self) -> Tensor:
        """(W, L): the share of each window in each of its frames; the shares of a frame add up to 1."""
        triangle = torch.arange(1, self.length + 1).minimum(torch.arange(self.length, 0, -1)).double()
        total = torch.zeros(self.num_frames, dtype=torch.float64)
        for start in self.starts:
            total[start : start + self.length] += triangle
        return torch.stack([triangle / total[start : start + self.length] for start in self.starts]).float()
