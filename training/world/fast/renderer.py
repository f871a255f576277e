"""The fast world's renderer: two patterned shapes, the front one over the back one, a batch of videos at a time.

Shape legend: B scenes, T frames, S pixels a side. Lengths are in half frames.
"""

import torch
from torch import Tensor

from training.world.fast.scenes import FAST_COLORS, PATTERNS, RADIUS, FastScenes, centers_at
from training.world.renderer import EDGE_PIXELS, Track, coverage
from training.world.scenes import BACKGROUNDS, RGB

PATTERN_COLOR: RGB = (244, 244, 244)
# Half the width of the stripe across the middle, and the radius of the dot, in radii of the object.
STRIPE, DOT = 0.32, 0.46


def render_fast(scenes: FastScenes, num_frames: int = 32, size: int = 64) -> Tensor:
    """Videos (B, T, 3, S, S), float32 in [-1, 1], on the device of the scenes."""
    times = torch.arange(num_frames, device=scenes.paths.device, dtype=torch.float32)
    return render_fast_at(scenes, times.expand(len(scenes), -1), size)


def render_fast_at(scenes: FastScenes, times: Tensor, size: int = 64) -> Tensor:
    """Frames (B, T, 3, S, S), float32 in [-1, 1], at `times` (B, T) in frames."""
    centers, num_frames = centers_at(scenes, times), times.shape[1]
    frames = _palette(list(BACKGROUNDS.values()), scenes.attributes[:, 0])[:, None].expand(
        -1, num_frames, -1, size, size
    )
    for index in (1, 0):
        frames = _paint(frames, scenes, centers[:, :, index], index)
    return frames * 2 - 1


def _paint(frames: Tensor, scenes: FastScenes, center: Tensor, index: int) -> Tensor:
    """One object over the frames (B, T, 3, S, S) in [0, 1]; `center` (B, T, 2)."""
    size, each = frames.shape[-1], center.shape[:2]
    tilt = scenes.paths[:, index, 3, None].expand(each)
    shapes = scenes.object_indices("shape")[:, index, None].expand(each)
    inside = coverage(shapes, Track(center, torch.full_like(tilt, RADIUS), tilt), size)
    color = _palette(list(FAST_COLORS.values()), scenes.object_indices("color")[:, index])[:, None]
    marked = _pattern(scenes.object_indices("pattern")[:, index, None].expand(each), center, tilt, size).unsqueeze(2)
    mark = torch.tensor(PATTERN_COLOR, device=frames.device).view(3, 1, 1) / 255
    surface = color + marked * (mark - color)
    return frames + inside.unsqueeze(2) * (surface - frames)


def _pattern(patterns: Tensor, center: Tensor, tilt: Tensor, size: int) -> Tensor:
    """How much of each pixel the stripe or the dot covers, (B, T, S, S) in [0, 1]."""
    pixels = (torch.arange(size, device=center.device) + 0.5) * (2 / size) - 1
    x = pixels - center[..., 0, None, None]
    y = pixels[:, None] - center[..., 1, None, None]
    turned = y * tilt.cos()[..., None, None] - x * tilt.sin()[..., None, None]
    stripe, dot = turned.abs() - STRIPE * RADIUS, torch.hypot(x, y) - DOT * RADIUS
    patterns = patterns[..., None, None]
    distance = torch.where(patterns == PATTERNS.index("striped"), stripe, dot)
    marked = (0.5 - distance / (EDGE_PIXELS * 2 / size)).clamp(0, 1)
    return torch.where(patterns == PATTERNS.index("plain"), 0.0, marked)


def _palette(colors: list[RGB], indices: Tensor) -> Tensor:
    """(B,) -> (B, 3, 1, 1) in [0, 1]."""
    return (torch.tensor(colors, device=indices.device)[indices] / 255)[..., None, None]
