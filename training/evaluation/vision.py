"""Reading a video of the demo world by classical image processing: what a viewer would say is to be seen in it.

Shape legend: T frames, S pixels a side. Nothing here is learned: the background is the colour of the border, the shape
is what differs from it, its motion a straight line fitted to where it is, how large it is and how it is turned.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.world.renderer import SECTORS, SIZE_RADII, UNIT_AREAS, Track, coverage
from training.world.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, Scene

Array = NDArray[np.float64]

# Half of what the world's scenes do at least, or less: the reading is to be right, the scene need not be perfect.
LEAST_DISPLACEMENT = 0.18  # of the frame; scenes move by 0.36 and more
LEAST_GROWTH = 1.35  # last radius over first; scenes grow by 2.3
LEAST_ROTATION_DEGREES = 35.0  # scenes turn by 90 and more
LEAST_CONTRAST = 40.0  # RGB distance of shape and background
LEAST_AREA = 12.0  # pixels
LEAST_LIKENESS = 0.5  # of the best fitting shape; noise stays below it, rendered shapes are at 0.77 and more
NUM_SHAPE_FRAMES = 6
ROTATION_STEP_DEGREES = 4.0


@dataclass(frozen=True)
class Attributes:
    """The visible attributes, in the words of the vocabulary, and their measurements."""

    color: str
    shape: str
    motion: str
    background: str
    size: str
    displacement: tuple[float, float]  # to the right and downwards, in frames
    growth: float  # last radius over first
    rotation_degrees: float  # clockwise; 0 for a circle
    likeness: float  # how well the shape fits its ideal, 0 .. 1 (intersection over union)

    def matches(self, scene: Scene) -> dict[str, bool]:
        """Attribute by attribute, whether this is the scene. A spinning circle looks the same as one at rest."""
        looks_at_rest = (scene.shape, scene.motion) == ("circle", "spinning")
        return {
            "color": self.color == scene.color,
            "shape": self.shape == scene.shape,
            "motion": self.motion == ("staying still" if looks_at_rest else scene.motion),
            "background": self.background == scene.background,
            "size": self.size == scene.size,
        }


def read_attributes(frames: NDArray[np.uint8]) -> Attributes | None:
    """Read decoded frames (T, S, S, 3) of uint8 RGB; None where no shape is to be made out in half of them."""
    if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.shape[3] != 3 or len(frames) < 2:
        raise ValueError(
            f"got frames of shape {frames.shape}; square RGB frames (T, S, S, 3), at least two, are needed"
        )
    pixels = frames.astype(np.float64)
    background = _border_color(pixels)
    seen = _segment(pixels, background)
    if seen is None:
        return None
    masks, color = seen
    areas = masks.sum(axis=(1, 2))
    visible = areas >= LEAST_AREA
    if visible.mean() < 0.5:
        return None
    masks, areas, times = masks[visible], areas[visible], np.linspace(0, 1, len(frames))[visible]
    centers = _centers(masks, areas)
    shape, likeness = _read_shape(masks, areas, centers)
    if likeness < LEAST_LIKENESS:
        return None
    rotation = _rotation_degrees(SHAPES.index(shape), masks, areas, centers, times)
    radius_first, radius_last = _line(times, np.sqrt(areas / UNIT_AREAS[shape]) * (2 / frames.shape[1]))
    ends = np.array([_line(times, centers[:, axis]) for axis in (0, 1)])
    displacement = (ends[:, 1] - ends[:, 0]) / 2
    growth = max(radius_last, 1e-3) / max(radius_first, 1e-3)
    return Attributes(
        color=_nearest(color, COLORS),
        shape=shape,
        motion=_name_motion(displacement, growth, rotation),
        background=_nearest(background, BACKGROUNDS),
        size=SIZES[int(np.abs(np.array(SIZE_RADII) - (radius_first + radius_last) / 2).argmin())],
        displacement=(float(displacement[0]), float(displacement[1])),
        growth=float(growth),
        rotation_degrees=rotation,
        likeness=likeness,
    )


def read_shapes(frames: NDArray[np.uint8]) -> list[str]:
    """The shape that fits best in each frame (T, S, S, 3) by itself, in which one is to be made out.

    Shapes differ in the number of their points, so a shape that bends while it spins has several.
    """
    pixels = frames.astype(np.float64)
    seen = _segment(pixels, _border_color(pixels))
    if seen is None:
        return []
    masks = seen[0][seen[0].sum(axis=(1, 2)) >= LEAST_AREA]
    areas = masks.sum(axis=(1, 2))
    centers = _centers(masks, areas)
    fits = [_fits(shape, masks, areas, centers).max(axis=1) for shape in range(len(SHAPES))]
    return [SHAPES[best] for best in np.argmax(fits, axis=0)]


def _border_color(pixels: Array) -> Array:
    border = [pixels[:, :2], pixels[:, -2:], pixels[:, :, :2], pixels[:, :, -2:]]
    median: Array = np.median(np.concatenate([part.reshape(-1, 3) for part in border]), axis=0)
    return median


def _segment(pixels: Array, background: Array) -> tuple[Array, Array] | None:
    """How much of each pixel is the shape's colour (T, S, S) in [0, 1], and that colour (3,)."""
    distances = np.linalg.norm(pixels - background, axis=-1)
    strongest = np.sort(distances, axis=None)[-max(1, int(LEAST_AREA)) * len(pixels) // 2]
    if strongest < LEAST_CONTRAST:
        return None
    color = np.median(pixels[distances > 0.7 * strongest], axis=0)
    core = _shares(pixels, background, color) > 0.9
    if core.any():
        color = np.median(pixels[core], axis=0)
    shares = _shares(pixels, background, color)
    kept = np.stack([_dilate(_largest_piece(share > 0.5), 2) for share in shares])
    return np.where(kept & (shares > 0.08), shares, 0.0), color


def _shares(pixels: Array, background: Array, color: Array) -> Array:
    """Where each pixel lies on the straight line from the background's colour (0) to the shape's (1)."""
    axis = color - background
    return np.clip((pixels - background) @ axis / (axis @ axis), 0, 1)


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece of a mask (S, S), by growing pieces from pixels not yet in one."""
    best, rest = np.zeros_like(mask), mask.copy()
    while rest.sum() > best.sum():
        piece = np.zeros_like(mask)
        piece.flat[rest.argmax()] = True
        while (grown := _dilate(piece, 1) & rest).sum() > piece.sum():
            piece = grown
        rest &= ~piece
        if piece.sum() > best.sum():
            best = piece
    return best


def _dilate(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    for _ in range(pixels):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        wide[:, 1:] |= mask[:, :-1]
        wide[:, :-1] |= mask[:, 1:]
        mask = wide
    return mask


def _centers(masks: Array, areas: Array) -> Array:
    """The centroids (T, 2) in half frames from the middle, as the renderer counts them."""
    places = (np.arange(masks.shape[1]) + 0.5) * (2 / masks.shape[1]) - 1
    return np.stack([masks.sum(axis=1) @ places, masks.sum(axis=2) @ places], axis=1) / areas[:, None]


def _line(times: Array, values: Array) -> tuple[float, float]:
    """The least-squares line through the values: where it is at time 0 and at time 1."""
    slope, start = np.polyfit(times, values, 1)
    return float(start), float(start + slope)


def _read_shape(masks: Array, areas: Array, centers: Array) -> tuple[str, float]:
    """The shape that fits best, over all rotations, in the frames where it is largest; and how well it fits."""
    largest = np.argsort(-areas)[:NUM_SHAPE_FRAMES]
    where = masks[largest], areas[largest], centers[largest]
    fits = [_fits(shape, *where).max(axis=1).mean() for shape in range(len(SHAPES))]
    best = int(np.argmax(fits))
    return SHAPES[best], float(fits[best])


def _fits(shape: int, masks: Array, areas: Array, centers: Array) -> Array:
    """Intersection over union (T, R) of masks (T, S, S) with the ideal shape of their place and area in R rotations."""
    name, size = SHAPES[shape], masks.shape[1]
    angles = torch.deg2rad(torch.from_numpy(_rotations(name))).float()
    radii = np.sqrt(areas / UNIT_AREAS[name]) * (2 / size)
    each = len(masks), len(angles)
    track = Track(
        torch.from_numpy(centers).float()[:, None].expand(*each, 2),
        torch.from_numpy(radii).float()[:, None].expand(each),
        angles.expand(each),
    )
    ideal = coverage(torch.full(each, shape), track, size).numpy()
    both, either = np.minimum(ideal, masks[:, None]), np.maximum(ideal, masks[:, None])
    quotient: Array = both.sum(axis=(2, 3)) / either.sum(axis=(2, 3))
    return quotient


def _rotations(shape: str) -> Array:
    """The distinguishable rotations in degrees: one for a circle, else in steps up to the shape's symmetry."""
    sector = math.degrees(SECTORS[shape])
    return np.zeros(1) if shape == "circle" else np.arange(0.0, sector, ROTATION_STEP_DEGREES)


def _rotation_degrees(shape: int, masks: Array, areas: Array, centers: Array, times: Array) -> float:
    """By how much the shape turns over the video, from the rotation that fits best in each frame."""
    name = SHAPES[shape]
    if name == "circle":
        return 0.0
    sector = math.degrees(SECTORS[name])
    best = _rotations(name)[_fits(shape, masks, areas, centers).argmax(axis=1)]
    start, end = _line(times, np.unwrap(best, period=sector))
    return end - start


def _name_motion(displacement: Array, growth: float, rotation: float) -> str:
    if np.abs(displacement).max() >= LEAST_DISPLACEMENT:
        right, down = displacement
        if abs(right) > abs(down):
            return "moving right" if right > 0 else "moving left"
        return "moving down" if down > 0 else "moving up"
    if growth >= LEAST_GROWTH:
        return "growing"
    if growth <= 1 / LEAST_GROWTH:
        return "shrinking"
    return "spinning" if abs(rotation) >= LEAST_ROTATION_DEGREES else "staying still"


def _nearest(color: Array, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(color - np.array(palette[name]))))
