"""95 % intervals: Wilson's for shares, the bootstrap's for everything else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_Z = 1.959964
NUM_RESAMPLES = 400


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from `count` videos."""

    value: float
    low: float
    high: float
    count: int


def share(marks: Sequence[bool]) -> Estimate:
    """The share of True (Wilson 1927)."""
    count = len(marks)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = sum(marks) / count
    middle = (value + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(value * (1 - value) / count + _Z**2 / (4 * count**2))
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half), count)


def bootstrap(rows: Array, statistic: Callable[[Array], float], seed: int = 0) -> Estimate:
    """`statistic` of `rows` (N, ...), with the percentile interval of resampled rows."""
    count = len(rows)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    generator = np.random.default_rng(seed)
    values = [statistic(rows[generator.integers(0, count, count)]) for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(statistic(rows)), float(low), float(high), count)


def mean(values: Sequence[float]) -> Estimate:
    """The mean."""
    return bootstrap(np.array(values, dtype=np.float64), lambda rows: float(rows.mean()))
