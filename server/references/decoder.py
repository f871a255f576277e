"""Decode an image or a video that a client sent into raw frames of the model's size.

The file is hostile until proven otherwise. Its kind is read from its first bytes and named to ffmpeg, which gets the
open file and nothing else: no path, no URL, no protocol but the descriptor. The child process is bounded in memory,
processor time, wall-clock time, pixels and frames.
"""

import os
import re
import resource
import subprocess
import threading
from dataclasses import dataclass
from typing import IO, Literal

import imageio_ffmpeg

from jobs.errors import InvalidRequestError, OverloadedError

MediaKind = Literal["png", "jpeg", "webp", "animated webp", "gif", "mp4", "webm"]
IMAGE_KINDS: tuple[MediaKind, ...] = ("png", "jpeg", "webp")

# The demuxer of each kind: ffmpeg must not guess, since some of its formats name other files.
_DEMUXERS: dict[MediaKind, str] = {
    "png": "png_pipe",
    "jpeg": "jpeg_pipe",
    "webp": "webp_pipe",
    "animated webp": "webp_anim",
    "gif": "gif",
    "mp4": "mov",
    "webm": "matroska",
}
_BYTES_PER_PIXEL = 3
# A flag of the extended header.
_WEBP_ANIMATION = 0b10

# Decoded frames are held in memory, so few files are decoded at a time.
_DECODERS = threading.BoundedSemaphore(2)
_RETRY_AFTER_SECONDS = 2


@dataclass(frozen=True)
class DecoderLimits:
    """The bounds of one decoding process."""

    max_pixels: int = 4096 * 4096
    max_frames: int = 1024
    max_output_bytes: int = 128 << 20
    max_memory_bytes: int = 1 << 30
    timeout_seconds: float = 20.0


@dataclass(frozen=True)
class DecodedFrames:
    """`rgb` holds `num_frames` frames of `height` x `width` pixels, three bytes each."""

    rgb: bytes
    num_frames: int
    width: int
    height: int

    @property
    def num_bytes(self) -> int:
        """The size of `rgb`."""
        return self.num_frames * self.width * self.height * _BYTES_PER_PIXEL

    def repeated(self, num_frames: int) -> "DecodedFrames":
        """A still video of one frame."""
        return DecodedFrames(self.rgb * num_frames, num_frames, self.width, self.height)

    def last(self, num_frames: int) -> "DecodedFrames":
        """The last frames, all of them where there are fewer."""
        kept = min(num_frames, self.num_frames)
        size = self.width * self.height * _BYTES_PER_PIXEL
        return DecodedFrames(self.rgb[-kept * size :], kept, self.width, self.height)


def media_kind(head: bytes) -> MediaKind | None:
    """The kind of a file by its first 32 bytes, None for any other."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "animated webp" if head[12:16] == b"VP8X" and head[20:21] and head[20] & _WEBP_ANIMATION else "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[4:8] == b"ftyp":
        return "mp4"
    return "webm" if head.startswith(b"\x1a\x45\xdf\xa3") else None


def decode(
    file: IO[bytes],
    param: str,
    width: int,
    height: int,
    fps: int | None = None,
    every: int = 1,
    max_frames: int | None = None,
    limits: DecoderLimits = DecoderLimits(),
) -> DecodedFrames:
    """The first frames of `file`, fitted to `width` x `height` by a centre crop and a resize.

    `file` is a real file with all of its content flushed. With `fps`, a video is resampled to that rate. Every
    `every`th frame is taken. Several PNGs in a row are a video, too. `param` is the request field that errors name.
    Raises `InvalidRequestError` for a file that is not one of the kinds, is broken, or passes a limit.
    """
    kind = media_kind(os.pread(file.fileno(), 32, 0))
    if kind is None:
        raise InvalidRequestError(
            f"{param} is not an image or a video that can be read; send a PNG, JPEG, WebP, GIF, MP4 or WebM file", param
        )
    frame_bytes = width * height * _BYTES_PER_PIXEL
    longest = min(limits.max_frames, limits.max_output_bytes // frame_bytes)
    wanted = min(max_frames or longest, longest)
    if not _DECODERS.acquire(timeout=limits.timeout_seconds):
        raise OverloadedError("the server is decoding other files", _RETRY_AFTER_SECONDS)
    try:
        rgb = _run(
            _command(kind, f"{_sampling(kind, fps, every)}{_fit(width, height)}", wanted, limits),
            file,
            param,
            kind,
            limits,
        )
    finally:
        _DECODERS.release()
    if not rgb or len(rgb) % frame_bytes:
        raise InvalidRequestError(f"{param} is a broken {kind.upper()} file: no frame could be decoded", param)
    return DecodedFrames(rgb, len(rgb) // frame_bytes, width, height)


def _sampling(kind: MediaKind, fps: int | None, every: int) -> str:
    resample = "" if fps is None or kind in IMAGE_KINDS else f"fps={fps},"
    return resample + ("" if every == 1 else f"select=not(mod(n\\,{every})),")


def _fit(width: int, height: int) -> str:
    return f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=area,crop={width}:{height},format=rgb24"


def _command(kind: MediaKind, filters: str, max_frames: int, limits: DecoderLimits) -> list[str]:
    source = ["-protocol_whitelist", "fd", "-threads", "1", "-max_pixels", str(limits.max_pixels)]
    source += ["-f", _DEMUXERS[kind], "-fd", "0", "-i", "fd:"]
    target = ["-map", "0:v:0", "-vf", filters, "-filter_threads", "1", "-fps_mode", "passthrough"]
    target += ["-frames:v", str(max_frames), "-f", "rawvideo", "pipe:1"]
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-xerror", *source, *target]


def _run(command: list[str], file: IO[bytes], param: str, kind: MediaKind, limits: DecoderLimits) -> bytes:
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=file, stdout=pipe, stderr=pipe, env={}, process_group=0) as child:
        try:
            _bound(child.pid, limits)
            output, errors = child.communicate(timeout=limits.timeout_seconds)
        except subprocess.TimeoutExpired:
            text = f"{param} takes longer than {limits.timeout_seconds:g} s to decode; send a shorter or smaller file"
            raise InvalidRequestError(text, param) from None
        finally:
            child.kill()
    if child.returncode != 0:
        raise InvalidRequestError(_reason(errors.decode(errors="replace"), param, kind, limits), param)
    return output


def _bound(pid: int, limits: DecoderLimits) -> None:
    """Bound a running child. A fork hook would do it earlier, but is not safe in a process with threads."""
    seconds = int(limits.timeout_seconds) + 1
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (limits.max_memory_bytes, limits.max_memory_bytes))
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds))
    except ProcessLookupError:
        pass  # it has ended already


def _reason(errors: str, param: str, kind: MediaKind, limits: DecoderLimits) -> str:
    """A message for the client. ffmpeg's own text may hold bytes of the file, so it is not repeated."""
    if re.search(r"max pixel count|Picture size \d+x\d+ is invalid", errors):
        return f"{param} has too many pixels; a frame may have at most {limits.max_pixels}"
    if "Cannot allocate memory" in errors or "bad_alloc" in errors:
        return f"{param} needs too much memory to decode; send a smaller file"
    return f"{param} is a broken {kind.upper()} file, or uses a codec that cannot be read; send H.264, VP8, VP9 or AV1"
