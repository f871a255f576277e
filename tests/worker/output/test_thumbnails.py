from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from worker.output.thumbnails import write_spritesheet, write_thumbnail


def plain_frames(count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frame i is grey of level 10 i."""
    levels = (10 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def test_the_thumbnail_is_the_frame_in_the_middle(tmp_path: Path) -> None:
    write_thumbnail(plain_frames(9), tmp_path / "t")
    with Image.open(tmp_path / "t") as image:
        assert (image.format, image.size) == ("WEBP", (64, 48))
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 40).max() <= 3


def test_a_large_video_has_a_thumbnail_of_bounded_size(tmp_path: Path) -> None:
    write_thumbnail(plain_frames(1, 720, 1280), tmp_path / "t")
    with Image.open(tmp_path / "t") as image:
        assert image.size == (640, 360)


@pytest.mark.parametrize(
    ("count", "columns", "rows", "levels"),
    [
        (1, 1, 1, [0]),
        (2, 2, 1, [0, 10]),
        (5, 3, 2, [0, 10, 20, 30, 40]),
        (16, 4, 4, [10 * i for i in range(16)]),
        (24, 4, 4, [10 * round(23 * i / 15) for i in range(16)]),
    ],
)
def test_the_spritesheet_has_the_frames_in_order(
    tmp_path: Path, count: int, columns: int, rows: int, levels: list[int]
) -> None:
    write_spritesheet(plain_frames(count), tmp_path / "s")
    with Image.open(tmp_path / "s") as image:
        assert (image.format, image.size) == ("JPEG", (columns * 64, rows * 48))
        pixels = np.asarray(image.convert("RGB")).astype(int)
    centres = [pixels[48 * (i // columns) + 24, 64 * (i % columns) + 32, 0] for i in range(columns * rows)]
    assert np.abs(np.array(centres[:count]) - levels).max() <= 3
    assert all(level <= 3 for level in centres[count:])


def test_the_tiles_of_a_large_video_are_of_bounded_size(tmp_path: Path) -> None:
    write_spritesheet(plain_frames(16, 720, 1280), tmp_path / "s")
    with Image.open(tmp_path / "s") as image:
        assert image.size == (4 * 256, 4 * 144)
