"""MP4 files back to frames, as a viewer's player decodes them."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray


def read_mp4(path: Path) -> NDArray[np.uint8]:
    """All frames (T, H, W, 3) of uint8 RGB. Raises `CalledProcessError` where it is not a whole video."""
    # Each frame comes as a PPM image, whose header "P6\nWIDTH HEIGHT\n255\n" says how large it is.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-xerror", "-i", f"file:{path}"]
    command += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    images = subprocess.run(command, capture_output=True, check=True).stdout
    _, size, _, _ = images.split(b"\n", maxsplit=3)
    width, height = map(int, size.split())
    header = len(b"P6\n" + size + b"\n255\n")
    frames = np.frombuffer(images, np.uint8).reshape(-1, header + height * width * 3)
    return frames[:, header:].reshape(-1, height, width, 3)
