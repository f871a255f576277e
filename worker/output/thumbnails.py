"""Images of a video: a thumbnail, and a sprite sheet of its frames.

Shape legend: T frames, H height, W width.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_THUMBNAIL_PIXELS = 640
_THUMBNAIL_QUALITY = 85
_TILE_PIXELS = 256
_MAX_TILES = 16
_SHEET_QUALITY = 88


def write_thumbnail(frames: NDArray[np.uint8], path: Path) -> None:
    """The frame in the middle of `frames` (T, H, W, 3) as WebP, no side longer than 640 pixels."""
    image = _shrunk(Image.fromarray(frames[len(frames) // 2]), _THUMBNAIL_PIXELS)
    image.save(path, "WEBP", quality=_THUMBNAIL_QUALITY)


def write_spritesheet(frames: NDArray[np.uint8], path: Path) -> None:
    """Up to 16 of `frames` (T, H, W, 3), evenly spread over the video, as JPEG.

    They go from left to right and from top to bottom, as many rows as columns or one less; what is left over in the
    last row is black. No side of a tile is longer than 256 pixels.
    """
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), _MAX_TILES)).round().astype(int)
    tiles = [_shrunk(Image.fromarray(frames[index]), _TILE_PIXELS) for index in chosen]
    width, height = tiles[0].size
    columns = math.ceil(math.sqrt(len(tiles)))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        sheet.paste(tile, (column * width, row * height))
    sheet.save(path, "JPEG", quality=_SHEET_QUALITY, optimize=True)


def _shrunk(image: Image.Image, max_pixels: int) -> Image.Image:
    image.thumbnail((max_pixels, max_pixels), Image.Resampling.LANCZOS)
    return image
