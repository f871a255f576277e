"""A scene of the demo world: its attributes, the combinations held out of training, and random draws.

Shape legend: B scenes, A = len(ATTRIBUTES) attributes, K = NUM_JITTERS random numbers that fix everything else.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum

import torch
from torch import Tensor

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "red": (226, 44, 44),
    "green": (46, 184, 72),
    "blue": (48, 96, 240),
    "yellow": (250, 222, 44),
    "orange": (250, 136, 24),
    "purple": (156, 62, 208),
    "cyan": (52, 214, 228),
    "white": (240, 240, 240),
}
BACKGROUNDS: dict[str, RGB] = {
    "black": (10, 10, 12),
    "gray": (112, 112, 116),
    "navy": (14, 22, 76),
    "brown": (82, 50, 26),
}
SHAPES = ("circle", "square", "triangle", "star")
# A four-pointed star. No demo model knows it: the demo adapter teaches it.
ADAPTER_SHAPE = "sparkle"
RENDERED_SHAPES = (*SHAPES, ADAPTER_SHAPE)
DIRECTIONS = ("moving left", "moving right", "moving up", "moving down")
MOTIONS = (*DIRECTIONS, "spinning", "growing", "shrinking", "staying still")
SIZES = ("small", "large")

VOCABULARY: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "motion": MOTIONS,
    "background": tuple(BACKGROUNDS),
    "size": SIZES,
}
ATTRIBUTES = tuple(VOCABULARY)
NUM_JITTERS = 8

CLASS_NAMES = tuple(f"{shape}-{direction.split()[1]}" for shape in SHAPES for direction in DIRECTIONS)


@dataclass(frozen=True)
class Scene:
    """One scene in words; every field is one of VOCABULARY's words for it."""

    color: str
    shape: str
    motion: str
    background: str
    size: str

    @classmethod
    def from_row(cls, row: Sequence[int]) -> "Scene":
        """The scene of one row of an attribute tensor (A,)."""
        return cls(*(words[int(index)] for words, index in zip(VOCABULARY.values(), row, strict=True)))

    def to_row(self) -> list[int]:
        return [words.index(word) for words, word in zip(VOCABULARY.values(), astuple(self), strict=True)]

    @property
    def class_label(self) -> int:
        """The class of `demo-class` (shape x direction); ValueError where the scene does not move."""
        if self.motion not in DIRECTIONS:
            raise ValueError(f"got a scene that is {self.motion!r}; only the motions {DIRECTIONS} have a class")
        return CLASS_NAMES.index(f"{self.shape}-{self.motion.split()[1]}")


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes: `attributes` (B, A) int64 into VOCABULARY, `jitters` (B, K) float32 in [0, 1)."""

    attributes: Tensor
    jitters: Tensor

    def __len__(self) -> int:
        return len(self.attributes)

    def __getitem__(self, rows: slice) -> "Scenes":
        return Scenes(self.attributes[rows], self.jitters[rows])

    def to(self, device: torch.device | str) -> "Scenes":
        return Scenes(self.attributes.to(device), self.jitters.to(device))

    def words(self) -> list[Scene]:
        return [Scene.from_row(row) for row in self.attributes.tolist()]


class Split(StrEnum):
    TRAINING = "training"
    HELD_OUT = "held-out"
    ALL = "all"


Combination = tuple[str, str, str]


def _held_out_combinations() -> frozenset[Combination]:
    combinations = list(itertools.product(COLORS, SHAPES, MOTIONS))
    by_hash = sorted(combinations, key=lambda words: hashlib.sha256(" ".join(words).encode()).digest())
    return frozenset(by_hash[: round(len(combinations) / 10)])


# One tenth of the (color, shape, motion) combinations, chosen by a hash of the words: the same on every machine and
# for good, and never rendered for training.
HELD_OUT = _held_out_combinations()


def combinations_of(split: Split, motions: Sequence[str] = MOTIONS) -> list[Combination]:
    """The (color, shape, motion) combinations of a split, in the order of the vocabulary."""
    everything = itertools.product(COLORS, SHAPES, motions)
    return [words for words in everything if split is Split.ALL or (words in HELD_OUT) == (split is Split.HELD_OUT)]


def draw_scenes(num_scenes: int, seed: int, split: Split = Split.TRAINING, motions: Sequence[str] = MOTIONS) -> Scenes:
    """Random scenes on the CPU, the same for the same seed; every combination of the split is equally likely."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor([_indices(words) for words in combinations_of(split, motions)])
    combinations = table[torch.randint(len(table), (num_scenes,), generator=generator)]
    backgrounds = torch.randint(len(BACKGROUNDS), (num_scenes, 1), generator=generator)
    sizes = torch.randint(len(SIZES), (num_scenes, 1), generator=generator)
    jitters = torch.rand(num_scenes, NUM_JITTERS, generator=generator)
    return Scenes(torch.cat([combinations, backgrounds, sizes], dim=1), jitters)


def scenes_from_words(scenes: Sequence[Scene], seed: int) -> Scenes:
    """The given scenes, with everything that words leave open drawn from `seed`."""
    jitters = torch.rand(len(scenes), NUM_JITTERS, generator=torch.Generator().manual_seed(seed))
    return Scenes(torch.tensor([scene.to_row() for scene in scenes]), jitters)


def _indices(words: Combination) -> list[int]:
    color, shape, motion = words
    return [tuple(COLORS).index(color), SHAPES.index(shape), MOTIONS.index(motion)]
