"""The similarity of two videos, frames (T, H, width, 3) uint8: PSNR and SSIM."""

import math

from torch import Tensor
from torch.nn.functional import avg_pool2d

# Of equal videos, whose ratio is infinite.
MAX_PSNR_DB = 80.0
_WINDOW = 7
# The constants of Wang et al. 2004 for 255 levels.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr_db(frames: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, at most `MAX_PSNR_DB`."""
    error = (frames.double() - reference.double()).square().mean().item()
    return MAX_PSNR_DB if error == 0 else min(MAX_PSNR_DB, 10 * math.log10(255**2 / error))


def ssim(frames: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) over windows of 7 x 7 pixels, the mean over frames and colours."""
    x, y = (video.permute(0, 3, 1, 2).double() for video in (frames, reference))
    window = min(_WINDOW, *x.shape[2:])

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, window, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return float((luminance * structure).mean().item())
