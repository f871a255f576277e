"""How a pass is divided among the processes of a group."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from models.attention.frame_split import FrameSplit, divide, part_of


class PassShape(NamedTuple):
    """The numbers that determine the shapes of all inputs of a model."""

    rows: int
    frames: int
    text_tokens: int


@dataclass(frozen=True)
class Split:
    """`counts` rows or frames for each rank, in order; the leader, rank 0, has the first ones."""

    axis: Literal["rows", "frames"]
    counts: tuple[int, ...]

    def rows(self, rank: int) -> slice | None:
        """The rows of a rank. None for all of them."""
        return part_of(self.counts, rank) if self.axis == "rows" else None

    def frames(self, rank: int) -> FrameSplit | None:
        """The frames of a rank. None for all of them."""
        return FrameSplit(self.counts, rank) if self.axis == "frames" else None


def split_rows(shape: PassShape, num_ranks: int) -> Split | None:
    """A split into parts that differ by one row at most. None for a pass that cannot be divided."""
    return Split("rows", divide(shape.rows, num_ranks)) if shape.rows > 1 and num_ranks > 1 else None


def split_frames(shape: PassShape, num_ranks: int) -> Split | None:
    """A split into parts that differ by one frame at most. None for a pass that cannot be divided."""
    return Split("frames", divide(shape.frames, num_ranks)) if shape.frames >= num_ranks > 1 else None
