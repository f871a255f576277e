"""From latents to a file: decode, encode.

Shape legend: T frames, C H W latent.
"""

import time
from pathlib import Path

from torch import Tensor

from models.vae import VideoDecoder
from worker.video import write_mp4


def finish(latents: Tensor, decoder: VideoDecoder, fps: float, path: Path) -> tuple[float, float]:
    """Write the video of `latents` (1, T, C, H, W) to `path`; the seconds that decoding and encoding took.

    Raises as `VideoDecoder.decode` and `write_mp4` do.
    """
    started = time.perf_counter()
    frames = decoder.decode(latents)
    decoded = time.perf_counter()
    write_mp4(frames.numpy(), path, fps)
    return decoded - started, time.perf_counter() - decoded
