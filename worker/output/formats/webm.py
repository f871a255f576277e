"""Frames to a WebM: VP9, yuv420p.

Shape legend: T frames, H height, W width.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.videos.record import OutputQuality
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import check_even, encode
from worker.output.formats.mp4 import halved_colour, metadata_tags

# Constant quality of libvpx, 0 to 63.
_QUALITIES: Mapping[OutputQuality, int] = {"low": 44, "medium": 34, "high": 20, "maximum": 6}


def write_webm(frames: NDArray[np.uint8], path: Path, encoding: Encoding) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB to `path`. Raises as `write_mp4` does."""
    check_even(frames)
    codec = ["-c:v", "libvpx-vp9", "-crf", str(_QUALITIES[encoding.quality]), "-b:v", "0"]
    # A fixed number of threads, as for x264.
    codec += ["-deadline", "good", "-cpu-used", "3", "-row-mt", "0", "-threads", "2"]
    target = [*metadata_tags(encoding.metadata), "-f", "webm"]
    encode(frames, [*halved_colour(len(frames), encoding), *codec, *target], path, encoding)
