"""MP4 files back to frames, as a viewer's player decodes them."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray


def read_mp4(path: Path) -> NDArray[np.uint8]:
    """All frames (T, H, W, 3) of uint8 RGB."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["source_size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames)
