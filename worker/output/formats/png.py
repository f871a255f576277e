"""Frames to lossless PNGs: one image, or a ZIP with an image for each frame.

Shape legend: T frames, H height, W width.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import interpolated
from worker.output.formats.metadata import FileMetadata

# The earliest time that a ZIP can hold: the same frames give the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_png(frames: NDArray[np.uint8], path: Path, encoding: Encoding) -> None:
    """Write the only one of `frames` (1, H, W, 3) uint8 RGB to `path`."""
    path.write_bytes(_png(frames[0], encoding.metadata))


def write_frames(frames: NDArray[np.uint8], path: Path, encoding: Encoding) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB to the ZIP `path`: `frame-00001.png`, `frame-00002.png` and so on.

    Interpolated frames are among them. The frames of the model are as it generated them.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # a PNG is compressed
        for number, frame in enumerate(interpolated(frames, encoding), 1):
            archive.writestr(zipfile.ZipInfo(f"frame-{number:05d}.png", _NO_TIME), _png(frame, encoding.metadata))


def _png(frame: NDArray[np.uint8], metadata: FileMetadata | None) -> bytes:
    texts = PngInfo()
    if metadata is not None:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp().decode())
        texts.add_itxt("Comment", metadata.text)
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "PNG", pnginfo=texts)
    return content.getvalue()
