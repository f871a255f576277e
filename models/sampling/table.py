"""A sampler as the rest of the program sees it: a table with one small matrix for each step.

Between two steps a sampler remembers its *state*, four tensors like the latent, stacked as `(B, 4, T, C, H, W)`:

    LATENT      the model's next input
    PREDICTION  the last prediction of the clean latent
    EARLIER     the prediction before that
    MEMORY      one more tensor of the sampler's own: UniPC's corrected latent, DEIS's last noise

One step is linear in the state, the model's output (noise, clean latent or velocity) and the fresh noise: six inputs.
So a step of any sampler is a 4 x 6 matrix, with zeros for the inputs that the sampler does not use.
"""

from dataclasses import dataclass

import torch

LATENT, PREDICTION, EARLIER, MEMORY = range(4)
NUM_STATES = 4
MODEL_OUTPUT, FRESH_NOISE = 4, 5
NUM_INPUTS = 6


@dataclass(frozen=True)
class SamplerTable:
    """One sampler at one number of steps. Its tensors are float32 on the CPU, shared, and must not be written to.

    The fresh noise of a step is scaled by `exp(log_variance / 2)` before its weight applies, where the model's variance
    channels v in [-1, 1] choose `log_variance` between the two ends of `log_variances` (see `models.sampling.update`).
    """

    sampler: str
    timesteps: torch.Tensor  # (num_steps,) given to the model; may be fractional
    weights: torch.Tensor  # (num_steps, 4, 6): new state from (old state, model output, scaled fresh noise)
    log_variances: torch.Tensor  # (num_steps, 2): at v = -1 and at v = 1
    draws_noise: tuple[bool, ...]  # for each step, whether it takes fresh noise from the request's generator
    start_scale: float  # of the start noise: the first latent is `start_scale * noise`
    start_levels: tuple[
        float, float
    ]  # alpha and sigma of the first step: a video at that level is alpha x + sigma noise

    @property
    def num_steps(self) -> int:
        return len(self.draws_noise)

    def states_read_from(self, step: int) -> tuple[int, ...]:
        """The states that the steps from `step` on read, directly or indirectly, to compute the latent."""
        read = {LATENT}
        for weights in reversed((self.weights[step:] != 0).tolist()):  # a list: indexing a tensor is slow
            read = {LATENT} | {k for k in range(NUM_STATES) if any(weights[j][k] for j in read)}
        return tuple(sorted(read))
