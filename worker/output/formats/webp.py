"""Frames to an animated WebP that repeats.

Shape legend: T frames, H height, W width.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.videos.record import OutputQuality
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import interpolated

_QUALITIES: Mapping[OutputQuality, int] = {"low": 50, "medium": 75, "high": 90, "maximum": 100}
# Compression effort, 0 to 6.
_METHOD = 4


def write_webp(frames: NDArray[np.uint8], path: Path, encoding: Encoding) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB to `path`. The quality `maximum` is lossless.

    The format joins frames that are equal to the one before.
    """
    first, *others = (Image.fromarray(frame) for frame in interpolated(frames, encoding))
    fps = encoding.fps * encoding.frame_rate_multiplier
    ends = [round(1000 * number / fps) for number in range(len(others) + 2)]
    first.save(
        path,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=[end - start for start, end in pairwise(ends)],
        loop=0,
        quality=_QUALITIES[encoding.quality],
        lossless=encoding.quality == "maximum",
        method=_METHOD,
        xmp=encoding.metadata.xmp() if encoding.metadata else b"",
    )
