"""Frames to an MP4 that every player and browser takes: H.264, yuv420p, its index at the front.

Shape legend: T frames, H height, W width.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.videos.record import OutputQuality
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import check_even, encode, interpolation
from worker.output.formats.metadata import DIGITAL_SOURCE_TYPE, FileMetadata

# Constant rate factor of x264: 0 is lossless, 18 is commonly taken as visually so.
_RATE_FACTORS: Mapping[OutputQuality, int] = {"low": 28, "medium": 22, "high": 16, "maximum": 6}
# The type of the box that holds XMP (ISO 16684-3).
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def write_mp4(frames: NDArray[np.uint8], path: Path, encoding: Encoding) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB to `path`, replacing what is there.

    With a frame rate multiplier above 1, the file has so many times T frames, and lasts as long.

    Raises `ValueError` for frames that H.264 with halved colour planes cannot hold (H and W must be even; the models'
    sizes always are), `EncodeError` when ffmpeg fails; no file is left at `path` then.
    """
    check_even(frames)
    # x264's output depends on how many threads it uses: a fixed number gives the same file on every machine.
    codec = ["-c:v", "libx264", "-preset", "medium", "-crf", str(_RATE_FACTORS[encoding.quality]), "-threads", "2"]
    flags = "+faststart" if encoding.metadata is None else "+faststart+use_metadata_tags"
    target = [*metadata_tags(encoding.metadata), "-movflags", flags, "-f", "mp4"]
    encode(frames, [*halved_colour(len(frames), encoding), *codec, "-pix_fmt", "yuv420p", *target], path, encoding)
    if encoding.metadata is not None:
        _append_xmp(path, encoding.metadata.xmp())


def halved_colour(num_frames: int, encoding: Encoding) -> list[str]:
    """ffmpeg's options for yuv420p, with interpolated frames."""
    # The matrix is named in the file: a player left to guess takes BT.601 for small pictures and shifts the colours.
    filters = interpolation(encoding) + "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
    options = ["-vf", filters, "-frames:v", str(num_frames * encoding.frame_rate_multiplier)]
    return [*options, "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


def metadata_tags(metadata: FileMetadata | None) -> list[str]:
    """ffmpeg's options for the tags of a container."""
    if metadata is None:
        return []
    return ["-metadata", f"comment={metadata.text}", "-metadata", f"digital_source_type={DIGITAL_SOURCE_TYPE}"]


def _append_xmp(path: Path, packet: bytes) -> None:
    with path.open("ab") as file:
        file.write((8 + len(_XMP_BOX) + len(packet)).to_bytes(4, "big") + b"uuid" + _XMP_BOX + packet)
