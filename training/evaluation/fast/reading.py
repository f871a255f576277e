"""Reading a video of the fast world: the two objects by their colors, and in each frame where they are.

Shape legend: T frames, S pixels a side. Nothing here is learned, and the prompt is not known here.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from training.evaluation.fast.paths import Path, fit_path
from training.world.fast.renderer import PATTERN_COLOR
from training.world.fast.scenes import FAST_COLORS, FAST_SHAPES, MAX_TILT, RADIUS
from training.world.renderer import Track, coverage
from training.world.scenes import BACKGROUNDS

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

PURE_DISTANCE = 70.0  # RGB distance up to which a pixel has a color of the palette
LEAST_AREA = 40  # pixels; a whole object has 150 or more
WHOLE_SHARE = 0.88  # of its usual area: an object that shows this much is seen whole
LEAST_WHOLE_FRAMES = 0.3  # of the frames
NUM_SHAPE_FRAMES = 6
_TILTS = np.linspace(-MAX_TILT, MAX_TILT, 3)


@dataclass(frozen=True)
class SeenObject:
    """One object: `masks` (T, S, S), of which `marks` have the pattern's color, its `centers` (T, 2) in half frames,
    and its `shares` (T,), the visible area of each frame over the usual one."""

    color: str
    masks: Mask
    marks: Mask
    centers: Array
    shares: Array

    @cached_property
    def whole(self) -> Mask:
        """The frames (T,) in which nothing hides a part of it."""
        return np.asarray(self.shares >= WHOLE_SHARE)

    @cached_property
    def path(self) -> Path:
        """The legal path nearest to where it is seen whole."""
        times = np.flatnonzero(self.whole).astype(np.float64)
        return fit_path(times, self.centers[self.whole])

    @cached_property
    def errors_pixels(self) -> Array:
        """(T,) distance to that path; NaN where it is not seen whole."""
        away = np.linalg.norm(self.centers - self.path.at(np.arange(len(self.centers), dtype=np.float64)), axis=1)
        return np.where(self.whole, away * self.masks.shape[1] / 2, np.nan)

    def shape(self, frames: NDArray[np.intp]) -> str:
        """The shape that fits best in the `frames`."""
        return _read_shape(self.masks[frames], self.centers[frames])

    def pattern(self, frames: NDArray[np.intp]) -> str:
        """The pattern in the `frames`."""
        return _read_pattern(self.marks[frames], self.centers[frames])

    def best_frames(self, among: Mask, least_share: float = WHOLE_SHARE) -> NDArray[np.intp]:
        """A few frames that show `least_share` of it or more, spread over the ones that `among` (T,) selects."""
        frames = np.flatnonzero((self.shares >= least_share) & among)
        picked = np.linspace(0, len(frames) - 1, min(NUM_SHAPE_FRAMES, len(frames))).round().astype(np.intp)
        return frames[picked]

    def speed_spread(self) -> float | None:
        """Standard deviation of its speed over the mean, from one frame to the next, without bounces; None if fewer
        than four steps are seen."""
        times = np.arange(len(self.centers) - 1, dtype=np.float64)
        steps = self.whole[:-1] & self.whole[1:] & ~self.path.bounces_between(times, times + 1)
        lengths = np.linalg.norm(np.diff(self.centers, axis=0), axis=1)[steps]
        return float(lengths.std() / max(lengths.mean(), 1e-6)) if len(lengths) >= 4 else None


@dataclass(frozen=True)
class Seen:
    """A video: its background's word, and the objects by color."""

    background: str
    objects: dict[str, SeenObject]


def read_video(frames: NDArray[np.uint8]) -> Seen:
    """Read decoded frames (T, S, S, 3) of uint8 RGB. Objects that are not to be made out are missing in the result."""
    pixels = frames.astype(np.float64)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    name = min(BACKGROUNDS, key=lambda word: float(np.linalg.norm(background - np.array(BACKGROUNDS[word]))))
    labels = _nearest(pixels, [background, *_main_colors(pixels, background).values(), np.array(PATTERN_COLOR)])
    colors = list(_main_colors(pixels, background))
    parts = [labels == 1 + index for index in range(len(colors))]
    if not parts:
        return Seen(name, {})
    centers = [_centers(part) for part in parts]
    marks = _share_marks(labels == 1 + len(colors), centers)
    found = {}
    for color, part, mark in zip(colors, parts, marks, strict=True):
        if (seen := _object(color, part, mark)) is not None:
            found[color] = seen
    return Seen(name, found)


def _main_colors(pixels: Array, background: Array) -> dict[str, Array]:
    """The two colors of the palette that most pixels have, as these pixels show them."""
    palette = list(FAST_COLORS.values())
    distances = np.stack([np.linalg.norm(pixels - np.array(color), axis=-1) for color in palette])
    nearest = distances.argmin(axis=0)
    pure = (distances.min(axis=0) < PURE_DISTANCE) & (np.linalg.norm(pixels - background, axis=-1) > PURE_DISTANCE / 2)
    counts = np.array([(pure & (nearest == index)).sum() for index in range(len(palette))])
    order = [int(index) for index in counts.argsort()[::-1][:2] if counts[index] >= LEAST_AREA * len(pixels) / 4]
    return {list(FAST_COLORS)[i]: np.median(pixels[pure & (nearest == i)], axis=0) for i in order}


def _nearest(pixels: Array, colors: list[Array]) -> NDArray[np.intp]:
    return np.asarray(np.stack([np.square(pixels - color).sum(axis=-1) for color in colors]).argmin(axis=0), np.intp)


def _grid(size: int) -> Array:
    return np.asarray((np.arange(size) + 0.5) * (2 / size) - 1, np.float64)


def _centers(masks: Mask) -> Array:
    """Centroids (T, 2) in half frames; NaN where a mask is empty."""
    areas = masks.sum(axis=(1, 2))
    sums = np.stack([masks.sum(axis=1) @ _grid(masks.shape[1]), masks.sum(axis=2) @ _grid(masks.shape[1])], axis=1)
    return np.where(areas[:, None] > 0, sums / np.maximum(areas, 1)[:, None], np.nan)


def _share_marks(marked: Mask, centers: list[Array]) -> list[Mask]:
    """Give every pixel of the pattern's color to the object whose center is nearest, if it is near enough."""
    away = np.stack([_away(marked.shape[1], center) for center in centers])
    away = np.where(np.isnan(away), np.inf, away)
    nearest = away.argmin(axis=0)
    return [marked & (nearest == index) & (away[index] < 1.1 * RADIUS) for index in range(len(centers))]


def _away(size: int, centers: Array) -> Array:
    """Distance of every pixel to the center of its frame's object, (T, S, S)."""
    x, y = _grid(size) - centers[:, :1], _grid(size) - centers[:, 1:]
    return np.hypot(x[:, None, :], y[:, :, None])


def _object(color: str, part: Mask, mark: Mask) -> SeenObject | None:
    masks = part | mark
    # Stray pixels of the same color far from the object do not belong to it.
    middle = np.stack([_median_place(mask) for mask in masks])
    masks &= np.nan_to_num(_away(masks.shape[1], middle), nan=np.inf) < 1.7 * RADIUS
    areas = masks.sum(axis=(1, 2)).astype(np.float64)
    usual = float(np.quantile(areas, 0.75))
    if usual < LEAST_AREA:
        return None
    seen = SeenObject(color, masks, masks & mark, _centers(masks), areas / usual)
    return seen if seen.whole.mean() >= LEAST_WHOLE_FRAMES else None


def _median_place(mask: Mask) -> Array:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.full(2, np.nan)
    grid = _grid(len(mask))
    return np.array([np.median(grid[columns]), np.median(grid[rows])])


def _read_shape(masks: Mask, centers: Array) -> str:
    """The shape whose ideal overlaps most with the masks (K, S, S), over a few tilts."""
    num_shapes, num_tilts, count = len(FAST_SHAPES), len(_TILTS), len(masks)
    each = (num_shapes, num_tilts * count)
    center = torch.from_numpy(np.tile(centers, (num_tilts, 1))).float().expand(num_shapes, -1, -1)
    tilt = torch.from_numpy(np.repeat(_TILTS, count)).float().expand(each)
    shapes = torch.arange(num_shapes)[:, None].expand(each)
    ideal = coverage(shapes, Track(center, torch.full(each, RADIUS), tilt), masks.shape[1]).numpy()
    ideal = ideal.reshape(num_shapes, num_tilts, count, *masks.shape[1:])
    overlap = np.minimum(ideal, masks).sum(axis=(3, 4)) / np.maximum(ideal, masks).sum(axis=(3, 4))
    return FAST_SHAPES[int(overlap.max(axis=1).mean(axis=1).argmax())]


def _read_pattern(marks: Mask, centers: Array) -> str:
    """From the pixels in the middle, and from those to the left and right that only a stripe covers."""
    grid = _grid(marks.shape[1])
    x = np.abs(grid - centers[:, :1])[:, None, :] / RADIUS
    y = np.abs(grid - centers[:, 1:])[:, :, None] / RADIUS
    middle = np.broadcast_to(np.hypot(x, y) < 0.3, marks.shape)
    sides = np.broadcast_to((x > 0.54) & (x < 0.74) & (y < 0.22), marks.shape)
    if marks[middle].mean() < 0.5:
        return "plain"
    return "striped" if marks[sides].mean() > 0.4 else "dotted"
