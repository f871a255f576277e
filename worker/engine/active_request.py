"""One admitted request and its progress. Its latents stay on the device while other requests run.

Shape legend: T frames of a turn, C H W latent. A video longer than the model was trained for is cut into windows (one
otherwise). They are made at once, or in turns of one window each (`models.generate`).
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.config import TransformerConfig
from models.generate import Generation, join
from models.sampling.known_frames import KnownFrames
from models.sampling.noise import NoiseStream
from models.sampling.table import LATENT, PREDICTION, SamplerTable
from models.sampling.windows import Windows
from worker.engine.snapshot import Snapshot


class Group(NamedTuple):
    """The batch key: requests with an equal group can share a forward pass, whatever else differs."""

    model: str
    shape: tuple[int, ...]  # of one row: (frames of a window, C, H, W)
    dtype: torch.dtype

    @staticmethod
    def of(model: str, checkpoint: Checkpoint, frames_per_row: int) -> "Group":
        config = checkpoint.config
        shape = (frames_per_row, config.latent_channels, config.latent_size, config.latent_size)
        return Group(model, shape, next(checkpoint.transformer.parameters()).dtype)


@dataclass(eq=False)
class ActiveRequest:
    """A request in a slot of the engine.

    Attributes:
        config: Of the transformer.
        generation: All turns.
        starts: First frame of each turn.
        windows: Of one turn.
        table: Of one turn.
        condition: One row for each row of the model's batch: one for each window, with guidance two.
        known: The frames of this turn with known latents, on the device.
        state: (1, 4, T, C, H, W) float32, laid out as in `models.sampling.table`.
        difference: (1, T, C, H, W) float32, the guidance difference of the last step with both rows. None unless the
            speed plan uses it again.
        step: Completed steps of this turn.
        turn: Index of the turn.
        made: (1, frames of the turns before, C, H, W) float32, on the CPU: the device may have no memory for it in the
            middle of a pass. None in the first turn.
        admitted_at: Time of admission, by the engine's clock, as all times here.
        started_at: Time of the first step that ran in this engine.
        retry_at: The request takes part in no pass before this time, because memory was short.
        out_of_memory_since: Time since when there is no memory for the request, even alone.
        isolation: The request shares passes only with requests of the same isolation.
    """

    request_id: str
    group: Group
    config: TransformerConfig
    generation: Generation
    starts: tuple[int, ...]
    windows: Windows
    table: SamplerTable
    condition: Condition
    known: KnownFrames | None
    noise: NoiseStream
    state: Tensor
    difference: Tensor | None
    admitted_at: float
    step: int = 0
    turn: int = 0
    made: Tensor | None = None
    started_at: float | None = None
    retry_at: float = 0.0
    out_of_memory_since: float | None = None
    isolation: str | None = None
    has_prediction: bool = False
    _fresh_noise: Tensor | None = None
    _noise_state: Tensor | None = None

    @staticmethod
    def create(
        request_id: str,
        model: str,
        checkpoint: Checkpoint,
        generation: Generation,
        snapshot: Snapshot | None,
        now: float,
    ) -> "ActiveRequest":
        """Prepare `generation` for its first step, or for the step after `snapshot`.

        Raises:
            ValueError: When the checkpoint does not support the generation, or the snapshot is of another one.
        """
        config = checkpoint.config
        generation.check(config)
        table = generation.table(checkpoint.schedule)
        first = generation.turn(config, 0, None)
        windows = first.windows(config)
        noise = NoiseStream(config, windows, generation.seed)
        weight = next(checkpoint.transformer.parameters())
        state = first.start_state(table, noise.start().to(weight.device))
        request = ActiveRequest(
            request_id=request_id,
            group=Group.of(model, checkpoint, windows.length),
            config=config,
            generation=generation,
            starts=generation.turns(config),
            windows=windows,
            table=table,
            condition=generation.model_condition(len(windows)).to(weight.device, weight.dtype),
            known=None if first.known is None else first.known.to(weight.device),
            noise=noise,
            state=state,
            difference=torch.zeros_like(state[:, LATENT]) if generation.reuses_difference() else None,
            admitted_at=now,
        )
        if snapshot is not None:
            request._restore(snapshot)
        return request

    @property
    def rows(self) -> int:
        """Rows of the model's batch that the next step takes; 0 after the last one."""
        return 0 if self.done else len(self.windows) * self.generation.rows(self.step)

    @property
    def full_rows(self) -> int:
        """Rows of a step that is computed in full."""
        return len(self.windows) * self.generation.full_rows

    @property
    def remaining_rows(self) -> int:
        """Rows of all steps that are not done."""
        per_turn = self.table.num_steps
        later = (len(self.starts) - 1 - self.turn) * self.generation.remaining_rows(0, per_turn)
        return len(self.windows) * (later + self.generation.remaining_rows(self.step, per_turn))

    @property
    def steps(self) -> int:
        """Number of steps of all turns."""
        return len(self.starts) * self.table.num_steps

    @property
    def steps_done(self) -> int:
        """Completed steps of all turns."""
        return self.turn * self.table.num_steps + self.step

    @property
    def latents(self) -> Tensor:
        """(1, T, C, H, W), with the frames of the turns before."""
        return self._join(self.state[:, LATENT])

    @property
    def prediction(self) -> Tensor | None:
        """The clean latents (1, T, C, H, W) that the last step predicted, with the frames of the turns before; None
        before the first step."""
        return self._join(self.state[:, PREDICTION]) if self.has_prediction else self.made

    @property
    def done(self) -> bool:
        return self.step == self.table.num_steps

    def fresh_noise(self) -> Tensor | None:
        """The noise (1, T, C, H, W) of the next step, drawn once a step; None for a step without noise."""
        if self._fresh_noise is None and self.table.draws_noise[self.step]:
            self._noise_state = self.noise.state()
            self._fresh_noise = self.noise.draw()
        return self._fresh_noise

    def advance(self, state: Tensor, difference: Tensor | None = None) -> None:
        """Complete one step with its results: `state` (1, 4, T, C, H, W) and guidance `difference` (1, T, C, H, W).

        After the last step of a turn, the next one begins.
        """
        self.state = state
        if self.difference is not None:
            self.difference = difference
        self.step += 1
        self.has_prediction = True
        self._fresh_noise = self._noise_state = None
        if self.done and self.turn + 1 < len(self.starts):
            self._begin_turn(self.turn + 1, self._join(self.state[:, LATENT].cpu()))

    def detach_from_batch(self) -> None:
        """Copy the state out of the batch's joint tensors, so that these can be freed."""
        with suppress(torch.OutOfMemoryError):
            self.state = self.state.clone()
            self.difference = None if self.difference is None else self.difference.clone()

    def snapshot(self) -> Snapshot:
        """Everything that is needed to resume in another engine, bit for bit."""
        noise_state = self.noise.state() if self._noise_state is None else self._noise_state
        difference = self.difference if self.generation.reuses_difference(self.step) else None
        return Snapshot.of(
            self.table, self.step, self.state, noise_state, self._adapters, difference, self.turn, self.made
        )

    @property
    def _adapters(self) -> str:
        return ",".join(scaled.fingerprint for scaled in self.generation.adapters)

    def _restore(self, snapshot: Snapshot) -> None:
        if snapshot.adapters != self._adapters:
            raise ValueError("got a snapshot that was taken with other adapters, or an adapter has changed since")
        if snapshot.turn:
            self._begin_turn(snapshot.turn, self._restored_frames(snapshot))
        self.state = snapshot.restored(self.table, self.state)
        if self.generation.reuses_difference(snapshot.step):
            self.difference = snapshot.restored_difference(self.state[:, LATENT])
        self.noise.restore(snapshot.noise_state)
        self.step = snapshot.step

    def _restored_frames(self, snapshot: Snapshot) -> Tensor:
        made, num_turns = snapshot.made, len(self.starts)
        num_made = self.starts[snapshot.turn - 1] + self.windows.length if 0 < snapshot.turn < num_turns else 0
        if made is None or made.shape != (1, num_made, *self.state.shape[3:]):
            raise ValueError(f"got a snapshot of turn {snapshot.turn}: this request has {num_turns} of other frames")
        return made

    def _begin_turn(self, turn: int, made: Tensor) -> None:
        window = self.generation.turn(self.config, turn, made)
        self.turn, self.step, self.made, self.has_prediction = turn, 0, made, False
        self.known, self.state = window.known, window.start_state(self.table, self.noise.start())
        if self.difference is not None:
            self.difference = torch.zeros_like(self.state[:, LATENT])

    def _join(self, latents: Tensor) -> Tensor:
        """`latents` (1, T, C, H, W) of this turn after the frames of the turns before, on the device of `latents`."""
        return latents if self.made is None else join(self.made.to(latents.device), latents, self.starts[self.turn])
