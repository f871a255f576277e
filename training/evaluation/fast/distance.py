"""A Fréchet distance between sets of videos, in a space of motion energies that needs no trained network.

A video's features are the logarithms of the power of its spectrum over space and time, in bins of spatial frequency,
direction and speed, for brightness and two color differences (the motion energy of Adelson and Bergen 1985). They do
not depend on where something is, only on what is there and how it moves. The principal components of real videos make
them few and of equal weight.

Shape legend: N videos, T frames, S pixels a side, F features, P principal components.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NUM_COMPONENTS = 24
_RADII = (0.5, 2.5, 5.0, 9.0, 16.0)  # cycles per frame width
_SECTORS = 4
_SPEEDS = (0.0, 0.02, 0.05, 0.1, 0.2, np.inf)  # frame widths per frame
# Brightness, yellow against blue, red against green.
_OPPONENTS = np.array([[0.299, 0.587, 0.114], [0.5, 0.5, -1.0], [1.0, -1.0, 0.0]])


@dataclass(frozen=True)
class FeatureSpace:
    """The principal components of real videos: `mean` (F,), `components` (F, P), scaled to unit variance."""

    mean: Array
    components: Array

    @classmethod
    def of(cls, features: Array, num_components: int = NUM_COMPONENTS) -> "FeatureSpace":
        """The space of the features (N, F) of real videos."""
        mean = features.mean(axis=0)
        _, scales, rows = np.linalg.svd(features - mean, full_matrices=False)
        kept = slice(min(num_components, len(features) - 1))
        return cls(mean, rows[kept].T * (np.sqrt(len(features)) / scales[kept]))

    def project(self, features: Array) -> Array:
        """(N, F) -> (N, P)."""
        return (features - self.mean) @ self.components


def motion_energy(frames: NDArray[np.uint8]) -> Array:
    """The features (F,) of a video (T, S, S, 3) of uint8 RGB."""
    channels = (frames.astype(np.float64) / 255) @ _OPPONENTS.T
    window = np.hanning(len(frames) + 2)[1:-1]
    faded = (channels - channels.mean(axis=(0, 1, 2))) * window[:, None, None, None]
    power = np.square(np.abs(np.fft.fftn(faded, axes=(0, 1, 2)))) / frames[..., 0].size
    bins = _bins(*frames.shape[:2])
    count = int(bins.max()) + 1
    sums = [np.bincount(bins.ravel(), power[..., c].ravel(), minlength=count) for c in range(power.shape[-1])]
    return np.log(np.concatenate([each[1:] for each in sums]) + 1e-3)


def _bins(num_frames: int, size: int) -> NDArray[np.intp]:
    """The bin of every frequency (T, S, S), from 1; 0 for frequencies that are left out."""
    time = np.fft.fftfreq(num_frames)[:, None, None]
    y, x = (np.fft.fftfreq(size, 1 / size).reshape(shape) for shape in ((1, -1, 1), (1, 1, -1)))
    radius = np.hypot(x, y)
    ring = np.digitize(radius, _RADII)
    # A frequency and its opposite are the same wave: of the two, the one with a rising phase says where it moves to.
    turned = np.where(time > 0, -1.0, 1.0)
    sector = np.floor((np.arctan2(y * turned, x * turned) / (2 * np.pi) + 1 / 16) * 2 * _SECTORS) % (2 * _SECTORS)
    speed = np.digitize(np.abs(time) / np.maximum(radius, 1e-9), _SPEEDS) - 1
    index = ((ring - 1) * 2 * _SECTORS + sector.astype(np.intp)) * (len(_SPEEDS) - 1) + speed + 1
    kept = (ring >= 1) & (ring < len(_RADII))
    return np.where(kept, index, 0)


def frechet_distance(first: Array, second: Array) -> float:
    """Between normal distributions of the rows (N, P) of both (Dowson and Landau 1982); NaN for fewer than two rows."""
    if min(len(first), len(second)) < 2:
        return float("nan")
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second)]
    difference = first.mean(axis=0) - second.mean(axis=0)
    # The trace of the root of a product of two covariances is the sum of the roots of its eigenvalues.
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    traces = sum(float(np.trace(covariance)) for covariance in covariances)
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues).sum())
