"""MP4s decoded by ffmpeg, for tests that look at what is in them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecodedVideo:
    frames: NDArray[np.uint8]
    """(T, H, W, 3) RGB."""
    fps: float
    codec: str
    """As ffmpeg names it, with the pixel format: `h264 (High), yuv420p(tv, bt709)`."""


def decode_mp4(path: Path) -> DecodedVideo:
    """Every frame of the video at `path`; raises `CalledProcessError` when it is not a whole video."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-xerror", "-i", f"file:{path}", "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    result = subprocess.run(command, capture_output=True, check=True)
    # Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, ...), 64x48, 75 kb/s, 8 fps, ...
    [line] = re.findall(rb"Stream #0:0.*: Video: (.*)", result.stderr)[:1]
    described = line.decode()
    [(width, height)] = re.findall(r", (\d+)x(\d+)[ ,]", described)
    frames = np.frombuffer(result.stdout, np.uint8).reshape(-1, int(height), int(width), 3)
    [fps] = re.findall(r"([\d.]+) fps", described)
    return DecodedVideo(frames, float(fps), described.split(", " + f"{width}x")[0])
