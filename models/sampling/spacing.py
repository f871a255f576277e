"""Which timesteps a sampler visits, falling: functions `(num_steps, num_train_timesteps) -> (num_steps,)`.

"Leading" and "linspace" are the names of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed"
(2023), table 2.
"""

from itertools import accumulate, repeat

import numpy as np

from models.sampling.schedule import Floats


def evenly_spread(num_steps: int, num_train_timesteps: int) -> Floats:
    """Whole timesteps from the last one down to 0, both included; a single step visits timestep 0 alone.

    This is the spacing of the spaced diffusion process (Nichol & Dhariwal 2021, section 4). It adds up the stride
    in floating point and rounds halves to even, and so must we: trained samplers are compared timestep by timestep.
    """
    stride = (num_train_timesteps - 1) / max(num_steps - 1, 1)
    rising = [round(position) for position in accumulate(repeat(stride, num_steps - 1), initial=0.0)]
    return np.array(rising[::-1], dtype=np.float64)


def leading(num_steps: int, num_train_timesteps: int) -> Floats:
    """Every k-th timestep starting from 0, k rounded down; the noisiest timesteps may be left out."""
    stride = num_train_timesteps // num_steps
    return np.arange(num_steps, dtype=np.float64)[::-1] * stride


def linspace(num_steps: int, num_train_timesteps: int) -> Floats:
    """Fractional timesteps from the last one down to 0, both included; a single step visits timestep 0 alone."""
    return np.linspace(0, num_train_timesteps - 1, num_steps)[::-1]


def linspace_above_zero(num_steps: int, num_train_timesteps: int) -> Floats:
    """Whole timesteps from the last one down towards 0, which itself is left out.

    With as many steps as timesteps, rounding would visit one timestep twice, and a multistep solver divides by the
    distance between its steps: there, the timesteps stay fractional.
    """
    timesteps = np.linspace(0, num_train_timesteps - 1, num_steps + 1)[:0:-1]
    return timesteps.round() if num_steps < num_train_timesteps else timesteps
