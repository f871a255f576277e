"""A scene of the fast world: two objects, one always in front, and the paths that they take.

Shape legend: B scenes, 2 objects (the front one first), A = len(COLUMNS) attributes. Lengths are in half frames (the
frame spans -1 .. 1, y downwards), times in frames from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.world.scenes import BACKGROUNDS, COLORS, DIRECTIONS

FAST_COLORS = {name: COLORS[name] for name in ("red", "green", "blue", "yellow", "purple", "cyan")}
FAST_SHAPES = ("circle", "square", "triangle")
PATTERNS = ("plain", "striped", "dotted")
# Half frames per frame: a quickly moving object crosses a whole frame in 8 frames, a slow one in 32. All objects of a
# pace have one speed.
PACES = {"quickly": 0.25, "slowly": 0.0625}

OBJECT_VOCABULARY: dict[str, tuple[str, ...]] = {
    "color": tuple(FAST_COLORS),
    "shape": FAST_SHAPES,
    "pattern": PATTERNS,
    "direction": DIRECTIONS,
}
OBJECTS = ("front", "back")
# The columns of a scene's attributes, and the words of each.
COLUMNS: dict[str, tuple[str, ...]] = {
    "background": tuple(BACKGROUNDS),
    "pace": tuple(PACES),
    **{f"{owner} {name}": words for owner in OBJECTS for name, words in OBJECT_VOCABULARY.items()},
}

RADIUS = 0.23
# Centers stay between -REACH and REACH: 1.22 is the longest radius of a shape, and a margin keeps edges off the border.
REACH = 1 - 1.22 * RADIUS - 0.03
MAX_TILT = 0.1  # radians
# The objects meet at a time and place drawn from these, so that every video has an occlusion.
MEETING_TIMES = (6.0, 20.0)
MAX_MEETING = 0.5
MAX_MISS = 0.1


@dataclass(frozen=True)
class Thing:
    """One object in words; every field is one of OBJECT_VOCABULARY's words for it."""

    color: str
    shape: str
    pattern: str
    direction: str


@dataclass(frozen=True)
class FastScene:
    """One scene in words. `front` passes in front of `back`; both start in their `direction`."""

    background: str
    pace: str
    front: Thing
    back: Thing

    @classmethod
    def from_row(cls, row: Sequence[int]) -> "FastScene":
        """The scene of one row of an attribute tensor (A,)."""
        words = [words[int(index)] for words, index in zip(COLUMNS.values(), row, strict=True)]
        return cls(words[0], words[1], Thing(*words[2:6]), Thing(*words[6:10]))

    def words(self) -> dict[str, str]:
        """The words by column."""
        each = {f"{owner} {name}": word for owner in OBJECTS for name, word in vars(getattr(self, owner)).items()}
        return {"background": self.background, "pace": self.pace, **each}


@dataclass(frozen=True)
class FastScenes:
    """A batch of scenes.

    Attributes:
        attributes: (B, A) int64, indices into the words of COLUMNS.
        paths: (B, 2, 4) float32. Each object's phase at time 0 (see `along`), speed, position across its direction,
            and tilt in radians.
    """

    attributes: Tensor
    paths: Tensor

    def __len__(self) -> int:
        return len(self.attributes)

    def __getitem__(self, rows: slice) -> "FastScenes":
        return FastScenes(self.attributes[rows], self.paths[rows])

    def to(self, device: torch.device | str) -> "FastScenes":
        return FastScenes(self.attributes.to(device), self.paths.to(device))

    def words(self) -> list[FastScene]:
        return [FastScene.from_row(row) for row in self.attributes.tolist()]

    def object_indices(self, name: str) -> Tensor:
        """(B, 2) indices of a word of OBJECT_VOCABULARY, for the front and the back object."""
        columns = [list(COLUMNS).index(f"{owner} {name}") for owner in OBJECTS]
        return self.attributes[:, columns]


def along(phase: Tensor) -> Tensor:
    """Position on a path between two walls: a triangle wave of period 4 REACH, at -REACH for phase 0 and rising."""
    folded = torch.remainder(phase, 4 * REACH)
    return torch.where(folded < 2 * REACH, folded - REACH, 3 * REACH - folded)


def centers_at(scenes: FastScenes, times: Tensor) -> Tensor:
    """Where each object's center is at `times` (B, T), (B, T, 2 objects, 2 for x and y)."""
    phase, speed, across, _ = scenes.paths.unbind(dim=-1)
    position = along(phase[:, None] + speed[:, None] * times[..., None])
    across = across[:, None].expand_as(position)
    horizontal = (scenes.object_indices("direction") < 2)[:, None]
    return torch.stack([torch.where(horizontal, position, across), torch.where(horizontal, across, position)], dim=-1)


def draw_fast_scenes(num_scenes: int, seed: int) -> FastScenes:
    """Random scenes on the CPU, the same for the same seed. The objects differ in color, and meet at least once."""
    generator = torch.Generator().manual_seed(seed)

    def choose(words: Sequence[str], *shape: int) -> Tensor:
        return torch.randint(len(words), (num_scenes, *shape), generator=generator)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num_scenes, *shape, generator=generator)

    background, pace = choose(tuple(BACKGROUNDS)), choose(tuple(PACES))
    colors = torch.rand(num_scenes, len(FAST_COLORS), generator=generator).argsort(dim=1)[:, :2]
    shapes, patterns = choose(FAST_SHAPES, 2), choose(PATTERNS, 2)
    horizontal, rising = choose(("no", "yes"), 2).bool(), choose(("no", "yes"), 2).bool()
    # On one axis, the objects meet head-on: in the same direction they would stay together.
    same_axis = horizontal[:, 0] == horizontal[:, 1]
    rising[:, 1] = torch.where(same_axis, ~rising[:, 0], rising[:, 1])
    speed = torch.tensor(list(PACES.values()))[pace][:, None].expand(-1, 2)
    meeting, time = draw(-MAX_MEETING, MAX_MEETING, 2), draw(*MEETING_TIMES)[:, None]
    position = torch.where(horizontal, meeting[:, :1], meeting[:, 1:])
    across = torch.where(horizontal, meeting[:, 1:], meeting[:, :1]) + draw(-MAX_MISS, MAX_MISS, 2)
    phase = torch.where(rising, position + REACH, 3 * REACH - position) - speed * time
    phase = torch.remainder(phase, 4 * REACH)
    starts_rising = phase < 2 * REACH
    # DIRECTIONS: left, right, up, down.
    directions = 2 * (~horizontal).long() + starts_rising.long()
    things = torch.stack([colors, shapes, patterns, directions], dim=-1).flatten(1)
    attributes = torch.cat([background[:, None], pace[:, None], things], dim=1)
    paths = torch.stack([phase, speed, across, draw(-MAX_TILT, MAX_TILT, 2)], dim=-1)
    return FastScenes(attributes, paths)
