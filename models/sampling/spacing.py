"""The timesteps that a sampler visits, falling: functions `(num_steps, num_train_timesteps, offset) -> (num_steps,)`.

"Leading", "linspace" and "trailing" are the names of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are
Flawed" (2023), table 2. The offset applies to "leading" alone, as in diffusers.
"""

from collections.abc import Callable
from itertools import accumulate, repeat

import numpy as np

from models.sampling.schedule import Floats, Spacing

Timesteps = Callable[[int, int, int], Floats]


def evenly_spread(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """Whole timesteps from the last one down to 0, both included; a single step visits timestep 0 alone.

    This is the spacing of the spaced diffusion process (Nichol & Dhariwal 2021, section 4). The published process adds
    up the stride in floating point and rounds halves to even; the same here gives the same timesteps.
    """
    stride = (num_train_timesteps - 1) / max(num_steps - 1, 1)
    rising = [round(position) for position in accumulate(repeat(stride, num_steps - 1), initial=0.0)]
    return np.array(rising[::-1], dtype=np.float64)


def leading(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """Every k-th timestep starting from the offset, k rounded down; the noisiest timesteps may be left out."""
    stride = num_train_timesteps // num_steps
    return np.arange(num_steps, dtype=np.float64)[::-1] * stride + offset


def leading_above_zero(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """`leading` of one more step, without its last timestep."""
    return leading(num_steps + 1, num_train_timesteps, offset)[:-1]


def linspace(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """Fractional timesteps from the last one down to 0, both included; a single step visits timestep 0 alone."""
    return np.linspace(0, num_train_timesteps - 1, num_steps)[::-1]


def whole_linspace(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """`linspace`, rounded to whole timesteps."""
    return linspace(num_steps, num_train_timesteps).round()


def linspace_above_zero(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """Whole timesteps from the last one down towards 0, which itself is left out.

    With as many steps as timesteps, rounding would visit one timestep twice, and a multistep solver divides by the
    distance between its steps: in this case the timesteps stay fractional.
    """
    timesteps = np.linspace(0, num_train_timesteps - 1, num_steps + 1)[:0:-1]
    return timesteps.round() if num_steps < num_train_timesteps else timesteps


def trailing(num_steps: int, num_train_timesteps: int, offset: int = 0) -> Floats:
    """Whole timesteps from the last one down, evenly spread; timestep 0 is left out but for the longest schedules."""
    rising = np.arange(num_train_timesteps, 0, -num_train_timesteps / num_steps)
    return rising[:num_steps].round() - 1


# By kind of sampler: those that visit whole timesteps only, those that take fractional ones, and multistep solvers.
WHOLE: dict[Spacing, Timesteps] = {
    Spacing.LEADING: leading,
    Spacing.LINSPACE: whole_linspace,
    Spacing.TRAILING: trailing,
}
FRACTIONAL: dict[Spacing, Timesteps] = WHOLE | {Spacing.LINSPACE: linspace}
MULTISTEP: dict[Spacing, Timesteps] = {
    Spacing.LEADING: leading_above_zero,
    Spacing.LINSPACE: linspace_above_zero,
    Spacing.TRAILING: trailing,
}
