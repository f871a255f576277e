"""Frames to an MP4 that every player and browser takes: H.264, yuv420p, its index at the front.

Shape legend: T frames, H height, W width.
"""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from jobs.errors import FrameditError

_TIMEOUT_SECONDS = 600.0
# Constant rate factor of x264: 0 is lossless, 18 is commonly taken as visually so.
_QUALITY = 16
# What ffmpeg says of a full disk, and of a file that may not grow (strerror of ENOSPC, EDQUOT, EFBIG).
_NO_ROOM = (b"No space left on device", b"Disk quota exceeded", b"File too large")


class EncodeError(FrameditError):
    """ffmpeg could not write the video; the message carries what it said, without the paths of this machine."""

    code = "encode_failed"


class EncoderLostError(EncodeError):
    """ffmpeg was killed, could not be started, or found no room: nothing is wrong with the video."""

    code = "encoder_lost"


class NoRoomError(EncoderLostError):
    """The disk is full, or this user has no more of it."""


def write_mp4(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB to `path`, replacing what is there.

    Raises `ValueError` for frames that H.264 with halved colour planes cannot hold (H and W must be even; the models'
    sizes always are), `EncodeError` when ffmpeg fails; no file is left at `path` then.
    """
    _check(frames, fps)
    try:
        result = subprocess.run(
            _command(frames.shape[2], frames.shape[1], fps, path),
            input=np.ascontiguousarray(frames).tobytes(),
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            process_group=0,  # a terminal's Ctrl-C is for the worker, which lets the encoder finish
        )
    except subprocess.TimeoutExpired as error:
        path.unlink(missing_ok=True)
        raise EncodeError(f"ffmpeg did not finish within {_TIMEOUT_SECONDS:.0f} s") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise EncoderLostError(f"ffmpeg could not be run: {error.strerror}") from error
    if result.returncode != 0:
        path.unlink(missing_ok=True)
        raise _kind_of(result)(f"ffmpeg {_how_it_ended(result.returncode)}: {_last_lines(result.stderr, path)}")


def _check(frames: NDArray[np.uint8], fps: float) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[0] == 0:
        raise ValueError(f"frames must be uint8 of shape (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"H and W must be even, got {frames.shape[1]}x{frames.shape[2]} (HxW)")
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")


def _command(width: int, height: int, fps: float, path: Path) -> list[str]:
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"]
    # The matrix is named in the file: a player left to guess takes BT.601 for small pictures and shifts the colours.
    colour = ["-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"]
    colour += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    # x264's output depends on how many threads it uses: a fixed number gives the same file on every machine.
    codec = ["-c:v", "libx264", "-preset", "medium", "-crf", str(_QUALITY), "-threads", "2", "-pix_fmt", "yuv420p"]
    target = ["-movflags", "+faststart", "-fflags", "+bitexact", "-f", "mp4", "-y", f"file:{path}"]
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-xerror", *source, *colour, *codec, *target]


def _kind_of(result: "subprocess.CompletedProcess[bytes]") -> type[EncodeError]:
    if any(words in result.stderr for words in _NO_ROOM):
        return NoRoomError
    return EncoderLostError if result.returncode < 0 else EncodeError


def _how_it_ended(returncode: int) -> str:
    return f"was killed by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"


def _last_lines(stderr: bytes, path: Path) -> str:
    lines = stderr.decode(errors="replace").replace(str(path), path.name).strip().splitlines()
    return " | ".join(lines[-3:]) or "it said nothing"
