"""The random numbers of one request."""

import torch

from models.config import Conditioning, TransformerConfig
from models.sampling.windows import Windows


class NoiseStream:
    """Gaussian latents drawn one after the other: the start noise, then that of each step that takes some, in order.

    The start noise of a video longer than the model was trained for is that of its first window, repeated.

    The generator is the request's own and lives on the CPU, so that a seed gives the same video on every device and in
    every batch. Numbers are drawn in the order in which the published samplers lay a latent out: (C, T, H, W) for the
    text family, (T, C, H, W) for the others.

    Raises ValueError for a seed that a generator does not take.
    """

    def __init__(self, config: TransformerConfig, windows: Windows, seed: int) -> None:
        if not 0 <= seed < 2**63:
            raise ValueError(f"got the seed {seed}: allowed are 0 to 2**63 - 1")
        self._channels_first = config.conditioning is Conditioning.TEXT
        self._windows = windows
        self._channels = config.latent_channels
        self._latent_size = config.latent_size
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def start(self) -> torch.Tensor:
        """The start noise (1, T, C, H, W), float32 on the CPU; to be drawn first."""
        return self._windows.spread_noise(self._draw(self._windows.length), self._generator)

    def draw(self) -> torch.Tensor:
        """The noise (1, T, C, H, W) of the next step that takes some, float32 on the CPU."""
        return self._draw(self._windows.num_frames)

    def _draw(self, frames: int) -> torch.Tensor:
        channels = self._channels
        area = (self._latent_size, self._latent_size)
        if self._channels_first:
            noise = torch.randn((1, channels, frames, *area), generator=self._generator)
            return noise.transpose(1, 2).contiguous()
        return torch.randn((1, frames, channels, *area), generator=self._generator)

    def state(self) -> torch.Tensor:
        """(5056,) uint8: where the stream is. `restore` of another stream with it draws the same from there on."""
        return self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Go on from where `state` was taken. Raises ValueError for what is no such state."""
        try:
            self._generator.set_state(state)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"got a generator state of {state.dtype} {tuple(state.shape)}: {error}") from error
