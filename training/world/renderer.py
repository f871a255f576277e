"""The demo world's renderer: soft-edged shapes by signed distance, a batch of videos at a time, on any device.

Shape legend: B scenes, T frames, S pixels a side. Lengths are in half frames (the frame spans -1 .. 1, y downwards),
times run from 0 (first frame) to 1 (last frame). Later, a motion goes on until the edge or its last size is reached.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.world.scenes import BACKGROUNDS, COLORS, DIRECTIONS, MOTIONS, RENDERED_SHAPES, Scenes

EDGE_PIXELS = 1.5
MARGIN = 0.04
MAX_OFFSET = 0.4
# The shortest travel is a little over a third of the frame.
MIN_TRAVEL, MAX_TRAVEL = 0.72, 1.3
SIZE_RADII = (0.27, 0.41)
# A growing shape's radius goes from its size's radius times the first factor to times the second.
SMALLEST_SCALE, LARGEST_SCALE = 0.6, 1.4
# Every spinning shape turns at the same speed, by this angle in a video.
SPIN = 0.75 * math.pi
HEADINGS = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}

# Every shape is a star with n tips: its outline runs from a tip (radius 1 x reach) to a notch halfway to the next tip.
# A polygon's notch lies on the straight line between two tips; 64 tips are a circle to a hundredth of a pixel.
_TIPS = {"circle": 64, "square": 4, "triangle": 3, "star": 5, "sparkle": 4}
_NOTCHES = {shape: math.cos(math.pi / tips) for shape, tips in _TIPS.items()} | {"star": 0.46, "sparkle": 0.36}
_REACHES = {"circle": 1.0, "square": 1.2, "triangle": 1.22, "star": 1.22, "sparkle": 1.22}
_TURNS = {"circle": 0.0, "square": math.pi / 4, "triangle": 0.0, "star": 0.0, "sparkle": 0.0}
MAX_REACH = max(_REACHES.values())
# A shape looks the same after a turn by its sector; its area is the unit area times its radius squared.
SECTORS = {shape: 2 * math.pi / tips for shape, tips in _TIPS.items()}
UNIT_AREAS = {
    shape: tips * _REACHES[shape] ** 2 * _NOTCHES[shape] * math.sin(math.pi / tips) for shape, tips in _TIPS.items()
}


@dataclass(frozen=True)
class Track:
    """Where the shape is at each time: `center` (B, T, 2), `radius` (B, T), `angle` (B, T) clockwise in radians."""

    center: Tensor
    radius: Tensor
    angle: Tensor


def render(scenes: Scenes, num_frames: int = 16, size: int = 64) -> Tensor:
    """Videos (B, T, 3, S, S), float32 in [-1, 1], on the device of the scenes."""
    times = torch.linspace(0, 1, num_frames, device=scenes.attributes.device)
    return render_at(scenes, times.expand(len(scenes), num_frames), size)


def render_at(scenes: Scenes, times: Tensor, size: int = 64) -> Tensor:
    """Frames (B, T, 3, S, S), float32 in [-1, 1], at the given times (B, T)."""
    track = track_of(scenes, times)
    inside = coverage(scenes.attributes[:, 1, None].expand_as(times), track, size).unsqueeze(2)
    colors, backgrounds = _palette(COLORS, scenes.attributes[:, 0]), _palette(BACKGROUNDS, scenes.attributes[:, 3])
    colors = (colors + (scenes.jitters[:, 5:8] - 0.5) * 0.08).clamp(0, 1)
    foreground, background = colors[:, None, :, None, None], backgrounds[:, None, :, None, None]
    return (background + inside * (foreground - background)) * 2 - 1


def track_of(scenes: Scenes, times: Tensor) -> Track:
    """The motion of every scene at `times` (B, T) from 0 on; the whole shape stays inside the frame at every time."""
    motions, sizes = scenes.attributes[:, 2], scenes.attributes[:, 4]
    place = scenes.jitters[:, 0:2] * 2 - 1
    speed, tilt, size = scenes.jitters[:, 2:5].unbind(dim=1)
    radius = torch.tensor(SIZE_RADII, device=times.device)[sizes] * (0.94 + 0.12 * size)
    growth = _is(motions, "growing") - _is(motions, "shrinking")
    scale = 1 + growth[:, None] * (LARGEST_SCALE - 1) * (2 * times.clamp(max=1) - 1)
    extent = radius * MAX_REACH * torch.where(growth != 0, LARGEST_SCALE, 1.0)

    heading = _headings(motions)
    longest = (2 - 2 * extent - 2 * MARGIN).clamp(max=MAX_TRAVEL)
    travel = heading * (MIN_TRAVEL + speed * (longest - MIN_TRAVEL))[:, None]
    room = (1 - MARGIN - extent[:, None] - travel.abs() / 2).clamp(0, MAX_OFFSET)
    center = (place * room)[:, None] + travel[:, None] * (times - 0.5)[..., None]
    edge = (1 - MARGIN - extent)[:, None, None]
    center = center.clamp(-edge, edge)

    spin = _is(motions, "spinning") * SPIN
    angle = math.radians(6) * (2 * tilt - 1)[:, None] + spin[:, None] * times
    return Track(center, radius[:, None] * scale, angle)


def coverage(shapes: Tensor, track: Track, size: int = 64) -> Tensor:
    """How much of each pixel the shape covers, (B, T, S, S) in [0, 1], for shape indices (B, T) on a track."""
    pixels = (torch.arange(size, device=shapes.device) + 0.5) * (2 / size) - 1
    x = pixels - track.center[..., 0, None, None]
    y = pixels[:, None] - track.center[..., 1, None, None]
    radius, angle = track.radius[..., None, None], track.angle[..., None, None]
    distance = _signed_distance(shapes[..., None, None], x, y, radius, angle)
    ramp = (0.5 - distance / (EDGE_PIXELS * 2 / size)).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _signed_distance(shapes: Tensor, x: Tensor, y: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """Distance to the outline, negative inside. The plane is folded by the shape's symmetry to half a tip's sector,
    where the outline is one segment from the tip to the notch."""
    sector, notch, reach, turn = (_per_shape(table, shapes) for table in (SECTORS, _NOTCHES, _REACHES, _TURNS))
    direction = torch.atan2(x, -y) - angle - turn
    folded = (torch.remainder(direction + sector / 2, sector) - sector / 2).abs()
    length, tip = torch.hypot(x, y), radius * reach
    along, across = length * folded.cos() - tip, length * folded.sin()
    edge_along, edge_across = tip * notch * (sector / 2).cos() - tip, tip * notch * (sector / 2).sin()
    on_edge = ((along * edge_along + across * edge_across) / (edge_along**2 + edge_across**2)).clamp(0, 1)
    distance = torch.hypot(along - on_edge * edge_along, across - on_edge * edge_across)
    outside = edge_across * along - edge_along * across > 0
    return torch.where(outside, distance, -distance)


def _per_shape(table: dict[str, float], shapes: Tensor) -> Tensor:
    return torch.tensor([table[shape] for shape in RENDERED_SHAPES], device=shapes.device)[shapes]


def _palette(table: dict[str, tuple[int, int, int]], indices: Tensor) -> Tensor:
    return torch.tensor(list(table.values()), device=indices.device)[indices] / 255


def _headings(motions: Tensor) -> Tensor:
    still = [(0, 0)] * (len(MOTIONS) - len(DIRECTIONS))
    return torch.tensor([*(HEADINGS[name] for name in DIRECTIONS), *still], device=motions.device)[motions].float()


def _is(motions: Tensor, name: str) -> Tensor:
    return (motions == MOTIONS.index(name)).float()
