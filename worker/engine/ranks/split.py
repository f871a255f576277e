"""How a pass is divided among the processes of a group."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal


@dataclass(frozen=True)
class Split:
    """`counts` rows or frames for each rank, in order; the leader, rank 0, has the first ones."""

    axis: Literal["rows", "frames"]
    counts: tuple[int, ...]

    def part(self, rank: int) -> slice:
        """The rows or frames of a rank."""
        end = list(accumulate(self.counts))[rank]
        return slice(end - self.counts[rank], end)

    @property
    def total(self) -> int:
        return sum(self.counts)


def split_rows(num_rows: int, num_ranks: int) -> Split | None:
    """A split of the rows into parts that differ by one row at most. None for a pass that cannot be divided."""
    return Split("rows", divide(num_rows, num_ranks)) if num_rows > 1 and num_ranks > 1 else None


def divide(total: int, num_parts: int) -> tuple[int, ...]:
    """`total` in parts that differ by one at most, the larger ones first."""
    share, rest = divmod(total, num_parts)
    return tuple(share + (part < rest) for part in range(num_parts))
