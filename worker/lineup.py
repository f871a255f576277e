"""The requests of one forward pass, their tensors joined. It is kept for as long as the same ones go on together.

B requests, M rows of the model's batch (2 for a request with guidance, else 1), T frames, C H W latent.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.conditioning import Condition
from models.sampling.guidance import guide
from models.sampling.table import LATENT
from models.sampling.update import StepCoefficients, update
from models.transformer import Transformer
from worker.seat import Seat


class Lineup:
    """`seats` are all of one group, and none has done its last step."""

    def __init__(self, seats: Sequence[Seat], transformer: Transformer) -> None:
        self.seats = tuple(seats)
        weight = next(transformer.parameters())
        self.device, self._dtype = weight.device, weight.dtype
        self._join_rows()
        self._join_tables()
        self._state = torch.cat([seat.state.to(self.device) for seat in seats])

    def _join_rows(self) -> None:
        """Which rows of the model's batch are whose: a request's own first, then the one to guide away from."""
        counts = [seat.rows for seat in self.seats]
        ends = torch.tensor(counts).cumsum(0)
        self._request_of_row = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(self.device)
        self._conditional = (ends - torch.tensor(counts)).to(self.device)
        self._unconditional = (ends - 1).to(self.device)
        self._scales = torch.tensor([seat.generation.guidance_scale for seat in self.seats], device=self.device)
        conditions = [seat.condition for seat in self.seats]
        self._condition = conditions[0] if len(conditions) == 1 else Condition.concat(conditions)

    def _join_tables(self) -> None:
        """One long table, in which each request has its place: a step is then a look at B places."""
        tables = [seat.table for seat in self.seats]
        starts = torch.tensor([0, *(table.num_steps for table in tables[:-1])]).cumsum(0)
        self._place = (starts + torch.tensor([seat.step for seat in self.seats])).to(self.device)
        self._table = StepCoefficients(
            timesteps=torch.cat([table.timesteps for table in tables]),
            weights=torch.cat([table.weights for table in tables]),
            log_variances=torch.cat([table.log_variances for table in tables]),
        ).to(self.device)

    @torch.no_grad()
    def step(self, transformer: Transformer, rows_at_once: int) -> Tensor:
        """Do the next step of every request; which of them (B,) have come to finite numbers, on the device.

        The transformer gets at most `rows_at_once` rows at a time. Where it raises, nothing has happened to a request.
        """
        coefficients = self._coefficients()
        latents = self._state[:, LATENT].to(self._dtype)[self._request_of_row]
        timesteps = coefficients.timesteps[self._request_of_row]
        outputs = _predict(transformer, latents, timesteps, self._condition, rows_at_once)
        channels = transformer.config.latent_channels
        noise, variance = guide(outputs.float(), self._conditional, self._unconditional, self._scales, channels)
        state = update(self._state, noise, variance, self._fresh_noise(noise), coefficients)
        finite = state[:, LATENT].flatten(1).isfinite().all(dim=1)
        self._state, self._place = state, self._place + 1
        for row, seat in enumerate(self.seats):
            seat.advance(state[row : row + 1])
        return finite

    def _coefficients(self) -> StepCoefficients:
        table, place = self._table, self._place
        return StepCoefficients(table.timesteps[place], table.weights[place], table.log_variances[place])

    def _fresh_noise(self, like: Tensor) -> Tensor:
        """(B, T, C, H, W), zero for those that take none at this step. Drawn while the device is at work."""
        drawn = {row: noise for row, seat in enumerate(self.seats) if (noise := seat.fresh_noise()) is not None}
        if not drawn:
            return torch.zeros_like(like)
        noise = torch.zeros(like.shape, pin_memory=like.is_cuda)
        for row, part in drawn.items():
            noise[row] = part[0]
        return noise.to(self.device, non_blocking=True)


def _predict(
    transformer: Transformer, latents: Tensor, timesteps: Tensor, condition: Condition, rows_at_once: int
) -> Tensor:
    if len(latents) <= rows_at_once:
        outputs: Tensor = transformer(latents, timesteps, condition)
        return outputs
    parts = [slice(start, start + rows_at_once) for start in range(0, len(latents), rows_at_once)]
    return torch.cat([transformer(latents[part], timesteps[part], condition.rows(part)) for part in parts])
