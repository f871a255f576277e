"""One admitted request: how far it has come. Its latents stay here while others run in its place.

T frames, C H W latent.
"""

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import torch
from torch import Tensor

from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.generate import Generation
from models.sampling.noise import NoiseStream
from models.sampling.samplers import build_table
from models.sampling.table import LATENT, PREDICTION, SamplerTable
from models.sampling.update import start_state
from worker.snapshot import Snapshot


class Group(NamedTuple):
    """Which requests can share a forward pass: those with all of this in common, and whatever else differs."""

    model: str
    shape: tuple[int, ...]  # (T, C, H, W)
    dtype: torch.dtype

    @staticmethod
    def of(model: str, checkpoint: Checkpoint, num_frames: int) -> "Group":
        config = checkpoint.config
        shape = (num_frames, config.latent_channels, config.latent_size, config.latent_size)
        return Group(model, shape, next(checkpoint.transformer.parameters()).dtype)


@dataclass(eq=False)
class Seat:
    """`condition` has one row for each row that the request takes in the model's batch: 2 with guidance, else 1."""

    request_id: str
    group: Group
    generation: Generation
    table: SamplerTable
    condition: Condition
    noise: NoiseStream
    state: Tensor  # (1, 4, T, C, H, W) float32, as `models.sampling.table` lays it out
    admitted_at: float
    step: int = 0
    started_at: float | None = None
    waits_until: float = 0.0  # there was no memory for it, not even alone
    starved_since: float | None = None
    has_prediction: bool = False
    _fresh: Tensor | None = None
    _noise_state: Tensor | None = None

    @staticmethod
    def take(
        request_id: str, model: str, checkpoint: Checkpoint, generation: Generation, snapshot: Snapshot | None
    ) -> "Seat":
        """A seat for `generation`, going on from `snapshot` if there is one.

        Raises ValueError for a generation that the checkpoint cannot do, or a snapshot of another one.
        """
        config = checkpoint.config
        generation.check(config)
        table = build_table(generation.sampler, generation.num_inference_steps, checkpoint.schedule)
        noise = NoiseStream(config, generation.num_frames, generation.seed)
        weight = next(checkpoint.transformer.parameters())
        seat = Seat(
            request_id=request_id,
            group=Group.of(model, checkpoint, generation.num_frames),
            generation=generation,
            table=table,
            condition=generation.model_condition().to(weight.device, weight.dtype),
            noise=noise,
            state=start_state(table, noise.draw()),
            admitted_at=monotonic(),
        )
        if snapshot is not None:
            seat._restore(snapshot)
        return seat

    @property
    def rows(self) -> int:
        """Rows of the model's batch that the next step takes."""
        return 2 if self.generation.guided else 1

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.table.num_steps

    @property
    def latents(self) -> Tensor:
        """(1, T, C, H, W)"""
        return self.state[:, LATENT]

    @property
    def prediction(self) -> Tensor | None:
        """The clean latents (1, T, C, H, W) that the last step predicted; None before the first."""
        return self.state[:, PREDICTION] if self.has_prediction else None

    @property
    def done(self) -> bool:
        return self.step == self.steps

    def fresh_noise(self) -> Tensor | None:
        """The noise (1, T, C, H, W) that the next step takes, None if it takes none; drawn once a step."""
        if self._fresh is None and self.table.draws_noise[self.step]:
            self._noise_state = self.noise.state()
            self._fresh = self.noise.draw()
        return self._fresh

    def advance(self, state: Tensor) -> None:
        """A step is done: `state` (1, 4, T, C, H, W) came of it."""
        self.state = state
        self.step += 1
        self.has_prediction = True
        self._fresh = self._noise_state = None

    def leave(self) -> None:
        """Others go on without it: its part of what was joined with theirs must not keep all of that in memory."""
        with suppress(torch.OutOfMemoryError):
            self.state = self.state.clone()

    def snapshot(self) -> Snapshot:
        """Enough to go on elsewhere, bit for bit."""
        noise_state = self.noise.state() if self._noise_state is None else self._noise_state
        return Snapshot.of(self.table, self.step, self.state, noise_state)

    def _restore(self, snapshot: Snapshot) -> None:
        self.state = snapshot.restored(self.table, self.state)
        self.noise.restore(snapshot.noise_state)
        self.step = snapshot.step
