"""Frames to a GIF that repeats: up to 256 colours, chosen for the video.

Shape legend: T frames, H height, W width.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.videos.record import OutputQuality
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import encode, interpolation

# Options of palettegen and paletteuse. `maximum` has a palette for each frame.
_PALETTES: Mapping[OutputQuality, tuple[str, str]] = {
    "low": ("max_colors=64:stats_mode=full", "dither=none"),
    "medium": ("max_colors=128:stats_mode=full", "dither=bayer:bayer_scale=4"),
    "high": ("max_colors=256:stats_mode=full", "dither=sierra2_4a"),
    "maximum": ("max_colors=256:stats_mode=single", "dither=sierra2_4a:new=1"),
}
_HEADER_BYTES = 13
_COMMENT = b"\x21\xfe"
_MAX_BLOCK_BYTES = 255


def write_gif(frames: NDArray[np.uint8], path: Path, encoding: Encoding) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB to `path`. Raises as `write_mp4` does, but H and W may be odd."""
    palette, use = _PALETTES[encoding.quality]
    filters = f"{interpolation(encoding)}split[a][b];[a]palettegen={palette}[p];[b][p]paletteuse={use}"
    num_frames = len(frames) * encoding.frame_rate_multiplier
    encode(frames, ["-filter_complex", filters, "-frames:v", str(num_frames), "-f", "gif"], path, encoding)
    if encoding.metadata is not None:
        path.write_bytes(with_comment(path.read_bytes(), encoding.metadata.text))


def with_comment(gif: bytes, text: str) -> bytes:
    """`gif` with a comment extension (GIF89a, section 24) before its first frame. `text` is ASCII."""
    flags = gif[10]
    num_colours = 2 << (flags & 0b111) if flags & 0x80 else 0
    start = _HEADER_BYTES + 3 * num_colours
    content = text.encode("ascii")
    blocks = [content[at : at + _MAX_BLOCK_BYTES] for at in range(0, len(content), _MAX_BLOCK_BYTES)]
    comment = _COMMENT + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00"
    return gif[:start] + comment + gif[start:]
