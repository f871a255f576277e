"""Seams of a video, where one part of it passes into another: is the change there larger than those around it?

A change is the mean absolute difference of two frames that follow each other, in levels of 0 to 255. One below
`VISIBLE_LEVELS` cannot be seen and passes, however still the rest of the video is.

Shape legend: T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VISIBLE_LEVELS = 1.0
# A shape may come to rest in a long video, so its seams are compared with the changes around them.
CHANGES_AROUND = 8

Changes = NDArray[np.float64]


@dataclass(frozen=True)
class Seam:
    """The change to frame `place`, and the usual change that it is compared with."""

    place: int
    change: float
    usual: float

    def is_smooth(self, most: float, visible_levels: float = VISIBLE_LEVELS) -> bool:
        """Whether the change cannot be seen, or is at most `most` times the usual one."""
        return self.change < visible_levels or self.change <= most * self.usual

    def __str__(self) -> str:
        return f"frame {self.place} {self.change:.2f} against {self.usual:.2f}"


def frame_changes(video: NDArray[np.uint8]) -> Changes:
    """The changes (T - 1,) of a video (T, height, width, 3)."""
    changes: Changes = np.abs(np.diff(video.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
    return changes


def seams(
    changes: Changes, places: Sequence[int], around: int | None = None, of_source: Changes | None = None
) -> list[Seam]:
    """The seams before the frames `places`, each with the median of the `around` nearest other changes, half of them
    on each side, or of all other changes.

    With the changes `of_source`, the video that the first frames are from, a seam between two of these frames is
    compared with the source's own change there.
    """
    at = np.array(places) - 1
    others = np.setdiff1d(np.arange(len(changes)), at)

    def usual(index: int) -> float:
        if of_source is not None and index < len(of_source):
            return float(of_source[index])
        before, after = others[others < index], others[others > index]
        near = others if around is None else np.concatenate([before[-(around // 2) :], after[: around // 2]])
        return float(np.median(changes[near]))

    return [Seam(int(index) + 1, float(changes[index]), usual(int(index))) for index in at]
