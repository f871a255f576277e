"""ffmpeg as an encoder: it reads raw frames from a pipe.

Shape legend: T frames, H height, W width.
"""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from jobs.errors import FrameditError
from worker.output.formats.encoding import Encoding

_TIMEOUT_SECONDS = 600.0
# More frames than minterpolate looks ahead.
_PADDING_FRAMES = 4
# The messages of ffmpeg about a full disk, and about a file that may not grow (strerror of ENOSPC, EDQUOT, EFBIG).
_NO_ROOM = (b"No space left on device", b"Disk quota exceeded", b"File too large")


class EncodeError(FrameditError):
    """ffmpeg could not write the video; the message carries what it said, without the paths of this machine."""

    code = "encode_failed"


class EncoderLostError(EncodeError):
    """ffmpeg was killed, did not start, or found a full disk: the video itself is not at fault."""

    code = "encoder_lost"


class NoRoomError(EncoderLostError):
    """The disk or the quota of the user is full."""


def encode(frames: NDArray[np.uint8], options: list[str], path: Path, encoding: Encoding) -> None:
    """Encode `frames` (T, H, W, 3) uint8 RGB to `path` with ffmpeg's `options`, replacing what is there.

    Raises `ValueError` for other frames, `EncodeError` when ffmpeg fails; no file is left at `path` then.
    """
    check_frames(frames, encoding.fps)
    try:
        _run(frames, [*options, "-fflags", "+bitexact", "-y", f"file:{path}"], path, encoding.fps)
    except EncodeError:
        path.unlink(missing_ok=True)
        raise


def interpolated(frames: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.uint8]:
    """`frames` (T, H, W, 3) with the interpolated frames among them. The given ones stay as they are."""
    check_frames(frames, encoding.fps)
    multiplier = encoding.frame_rate_multiplier
    if multiplier == 1:
        return frames
    options = ["-vf", f"{interpolation(encoding)}format=rgb24", "-frames:v", str(len(frames) * multiplier)]
    output = _run(frames, [*options, "-f", "rawvideo", "pipe:1"], Path("frames"), encoding.fps)
    result = np.frombuffer(output, np.uint8).reshape(-1, *frames.shape[1:]).copy()
    result[::multiplier] = frames
    return result


def interpolation(encoding: Encoding) -> str:
    """The filter that multiplies the frame rate. It needs frames around each that it makes: copies of the last one."""
    if encoding.frame_rate_multiplier == 1:
        return ""
    fps = encoding.fps * encoding.frame_rate_multiplier
    return f"tpad=stop={_PADDING_FRAMES}:stop_mode=clone,minterpolate=fps={fps:g}:mi_mode=mci:scd=none,"


def check_frames(frames: NDArray[np.uint8], fps: float) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[0] == 0:
        raise ValueError(f"frames must be uint8 of shape (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape}")
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")


def check_even(frames: NDArray[np.uint8]) -> None:
    """Raises `ValueError` for frames that a format with halved colour planes cannot hold."""
    if frames.ndim == 4 and frames.shape[3] == 3 and (frames.shape[1] % 2 or frames.shape[2] % 2):
        raise ValueError(f"H and W must be even, got {frames.shape[1]}x{frames.shape[2]} (HxW)")


def _run(frames: NDArray[np.uint8], options: list[str], path: Path, fps: float) -> bytes:
    """Run ffmpeg over `frames`, and return its output. `path` is the file that it writes, for messages."""
    height, width = frames.shape[1:3]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"]
    try:
        result = subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-xerror", *source, *options],
            input=np.ascontiguousarray(frames).tobytes(),
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            process_group=0,  # a terminal's Ctrl-C is for the worker, which lets the encoder finish
        )
    except subprocess.TimeoutExpired as error:
        raise EncodeError(f"ffmpeg did not finish within {_TIMEOUT_SECONDS:.0f} s") from error
    except OSError as error:
        raise EncoderLostError(f"ffmpeg could not be run: {error.strerror}") from error
    if result.returncode != 0:
        raise _kind_of(result)(f"ffmpeg {_how_it_ended(result.returncode)}: {_last_lines(result.stderr, path)}")
    return result.stdout


def _kind_of(result: "subprocess.CompletedProcess[bytes]") -> type[EncodeError]:
    if any(words in result.stderr for words in _NO_ROOM):
        return NoRoomError
    return EncoderLostError if result.returncode < 0 else EncodeError


def _how_it_ended(returncode: int) -> str:
    return f"was killed by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"


def _last_lines(stderr: bytes, path: Path) -> str:
    lines = stderr.decode(errors="replace").replace(str(path), path.name).strip().splitlines()
    return " | ".join(lines[-3:]) or "it said nothing"
