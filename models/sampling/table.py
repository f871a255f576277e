"""What a sampler is to the rest of the program: a table with one small matrix for each step.

Between two steps a sampler remembers its *state*, four tensors like the latent, stacked as `(B, 4, T, C, H, W)`:

    LATENT      what the model is given next
    PREDICTION  the last clean-latent prediction, (latent - sigma * predicted noise) / alpha
    EARLIER     the prediction before that
    CORRECTED   the last latent as a corrector (UniPC) left it

One step is linear in the state, the predicted noise and the fresh noise: six inputs. So a step of any sampler is a
4 x 6 matrix, and zero where the sampler has no use for an input.
"""

from dataclasses import dataclass

import torch

LATENT, PREDICTION, EARLIER, CORRECTED = range(4)
NUM_STATES = 4
PREDICTED_NOISE, FRESH_NOISE = 4, 5
NUM_INPUTS = 6


@dataclass(frozen=True)
class SamplerTable:
    """One sampler at one number of steps. Tensors are float32 on the CPU; they are shared, so nobody writes to them.

    The fresh noise of a step is scaled by `exp(log_variance / 2)` before its weight applies, where the model's variance
    channels v in [-1, 1] choose `log_variance` between the two ends of `log_variances` (see `models.sampling.update`).
    """

    sampler: str
    timesteps: torch.Tensor  # (num_steps,) given to the model; may be fractional
    weights: torch.Tensor  # (num_steps, 4, 6): new state from (old state, predicted noise, scaled fresh noise)
    log_variances: torch.Tensor  # (num_steps, 2): at v = -1 and at v = 1
    draws_noise: tuple[bool, ...]  # for each step, whether it takes fresh noise from the request's generator
    start_scale: float  # of the start noise: the first latent is `start_scale * noise`

    @property
    def num_steps(self) -> int:
        return len(self.draws_noise)
