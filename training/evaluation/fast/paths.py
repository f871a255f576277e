"""The legal path that fits an object's positions best: constant speed along one axis, reflected by the walls.

Shape legend: V visible frames. Positions are in half frames, times in frames.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world.fast.scenes import REACH

Array = NDArray[np.float64]

SPEEDS = (0.02, 0.34)
# A frame that is far off counts no more than this in the search, so that a few wrong frames do not decide.
WORST = 0.5
_ZOOMS = 6


@dataclass(frozen=True)
class Path:
    """`phase` at time 0 of the triangle wave along the axis (0: x, 1: y), `speed` and the position `across` it."""

    axis: int
    phase: float
    speed: float
    across: float

    def at(self, times: Array) -> Array:
        """Positions (V, 2)."""
        main = wave(self.phase + self.speed * times)
        other = np.full_like(main, self.across)
        return np.stack([main, other] if self.axis == 0 else [other, main], axis=1)

    def bounces_between(self, start: Array, end: Array) -> NDArray[np.bool_]:
        """Whether the path touches a wall between the times."""
        walls = [np.floor((self.phase + self.speed * times) / (2 * REACH)) for times in (start, end)]
        return np.asarray(walls[0] != walls[1])

    def first_directions(self) -> frozenset[str]:
        """The direction at time 0; both where the path touches a wall within three quarters of a frame of it."""
        names = ("moving right", "moving left") if self.axis == 0 else ("moving down", "moving up")
        phases = self.phase + self.speed * np.array([-0.75, 0.0, 0.75])
        return frozenset(names[int(wall) % 2] for wall in np.floor(phases / (2 * REACH)))


def wave(phase: Array) -> Array:
    """The triangle wave of `training.world.fast.scenes.along`."""
    folded = np.mod(phase, 4 * REACH)
    return np.where(folded < 2 * REACH, folded - REACH, 3 * REACH - folded)


def fit_path(times: Array, positions: Array) -> Path:
    """The path with the least squared error at `times` (V,) to `positions` (V, 2)."""
    fits = [_fit_axis(axis, times, positions) for axis in (0, 1)]
    return min(fits, key=lambda fit: fit[0])[1]


def _fit_axis(axis: int, times: Array, positions: Array) -> tuple[float, Path]:
    across = float(np.median(positions[:, 1 - axis]))
    speeds, phases = np.linspace(*SPEEDS, 129), np.linspace(0, 4 * REACH, 64, endpoint=False)
    spans = np.array([speeds[1] - speeds[0], phases[1] - phases[0]])
    for _ in range(_ZOOMS):
        errors = _errors(speeds, phases, times, positions[:, axis])
        best = np.unravel_index(int(errors.argmin()), errors.shape)
        speed, phase = float(speeds[best[0]]), float(phases[best[1]])
        speeds, phases = (np.linspace(-1, 1, 13) * span + at for span, at in zip(spans, (speed, phase), strict=True))
        spans = spans / 4
    path = Path(axis, phase, speed, across)
    error = np.square(path.at(times) - positions).sum(axis=1)
    return float(np.minimum(error, WORST**2).mean()), path


def _errors(speeds: Array, phases: Array, times: Array, positions: Array) -> Array:
    """Mean squared error of every speed and phase, (speeds, phases)."""
    predicted = wave(phases[None, :, None] + speeds[:, None, None] * times)
    return np.asarray(np.minimum(np.square(predicted - positions), WORST**2).mean(axis=-1))
