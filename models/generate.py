"""One request from noise to latents, step by step: the plain loop that a batching engine must agree with.

T frames, C H W latent. A video longer than the model was trained for is cut into windows. Each window is a row of the
model's batch, with guidance two. A model that is shown known frames without noise makes one window after the other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from models.adapters.adapter import ScaledAdapter
from models.adapters.row_adapters import RowAdapters
from models.conditioning import Condition
from models.config import TransformerConfig
from models.sampling.guidance import guidance_difference, guide
from models.sampling.known_frames import KnownFrames
from models.sampling.noise import NoiseStream
from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.speed_plan import check_plan, with_plan
from models.sampling.table import LATENT, SamplerTable
from models.sampling.update import gather, start_state, update
from models.sampling.windows import Windows
from models.transformer import Transformer

OnStep = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Source:
    """A video to change (SDEdit, Meng et al. 2022): noise is added, and only the last `strength` of the steps are done.

    Attributes:
        latents: (1, T, C, H, W) float32, clean.
        strength: above 0, at most 1, where almost nothing of the source is left.
    """

    latents: torch.Tensor
    strength: float

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless this is a source for latents of `shape` (T, C, H, W)."""
        if not 0 < self.strength <= 1:
            raise ValueError(f"got the strength {self.strength}: allowed is above 0 and at most 1")
        if tuple(self.latents.shape) != (1, *shape) or not self.latents.isfinite().all():
            raise ValueError(
                f"got source latents of shape {tuple(self.latents.shape)}: finite {(1, *shape)} are needed"
            )

    def of(self, frames: slice) -> "Source":
        """The source of some `frames` of the video."""
        return Source(self.latents[:, frames], self.strength)

    def first_step(self, num_steps: int) -> int:
        """The first of `num_steps` steps that is done."""
        return min(int((1 - self.strength) * num_steps), num_steps - 1)


@dataclass(frozen=True)
class Generation:
    """A video to generate. `condition` and `negative` are one row each. `adapters` change the model for both.

    With a guidance scale of 1 the negative condition is not used and may be None. `window_stride` counts for videos
    longer than the model was trained for; None is half of the trained length. `plan` is a speed plan for the steps that
    are done (`models.sampling.speed_plan`); None computes every row of every step.
    """

    seed: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    num_frames: int
    condition: Condition
    negative: Condition | None = None
    known: KnownFrames | None = None
    source: Source | None = None
    window_stride: int | None = None
    adapters: tuple[ScaledAdapter, ...] = ()
    plan: str | None = None

    @property
    def guided(self) -> bool:
        """Whether the model runs twice a step, on the condition and on the negative one."""
        return self.guidance_scale != 1

    def check(self, config: TransformerConfig) -> None:
        """Raise ValueError unless a model of `config` can do this; sampler and steps are `build_table`'s to check."""
        self.condition.check(config, rows=1)
        if any(scaled.adapter.config != config for scaled in self.adapters):
            raise ValueError("got an adapter that was read for another model")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"got the guidance scale {self.guidance_scale}: it must be a finite number")
        self.windows(config)
        shape = (self.num_frames, config.latent_channels, config.latent_size, config.latent_size)
        for clean in (self.known, self.source):
            if clean is not None:
                clean.check(shape)
        if not self.guided:
            return
        if self.negative is None:
            raise ValueError(
                f"got the guidance scale {self.guidance_scale} without a negative condition: "
                "give one, or the scale 1 for no guidance"
            )
        self.negative.check(config, rows=1)

    def windows(self, config: TransformerConfig) -> Windows:
        """The windows of the video. Raises ValueError for a number of frames or a stride that cannot be."""
        return Windows.of(self.num_frames, config.num_frames, self.window_stride)

    def turns(self, config: TransformerConfig) -> tuple[int, ...]:
        """The first frame of each turn of the sampler.

        A model that is shown known frames without noise makes the windows in turn, and each goes on from the one before
        (`join`). Another model makes all windows at once, in a single turn.
        """
        return self.windows(config).starts if config.clean_known_frames else (0,)

    def turn(self, config: TransformerConfig, index: int, made: torch.Tensor | None) -> "Generation":
        """Turn `index` as a generation of its own; `made` (1, T', C, H, W) are the latents of the turns before."""
        starts = self.turns(config)
        if len(starts) == 1:
            return self
        frames = slice(starts[index], starts[index] + config.num_frames)
        return replace(
            self,
            num_frames=config.num_frames,
            known=self._known_in_turn(frames, made),
            source=None if self.source is None else self.source.of(frames),
        )

    def _known_in_turn(self, frames: slice, made: torch.Tensor | None) -> KnownFrames | None:
        known = None if self.known is None else self.known.of(frames)
        if made is None or made.shape[1] <= frames.start:
            return known
        num_known = _num_known(made.shape[1] - frames.start)
        known = known or KnownFrames.none(made[:, : frames.stop - frames.start])
        return known.with_first(made[:, frames.start : frames.start + num_known])

    def table(self, schedule: NoiseSchedule) -> SamplerTable:
        """The sampler's table, from the first step that is done, by the speed plan if there is one.

        Raises ValueError as `build_table` does, and for a plan that is not one of these steps.
        """
        first_step = self.source.first_step(self.num_inference_steps) if self.source else 0
        table = build_table(self.sampler, self.num_inference_steps, schedule, first_step)
        if self.plan is None:
            return table
        check_plan(self.plan, table, guided=self.guided)
        return with_plan(table, self.plan)

    @property
    def full_rows(self) -> int:
        """Rows of a window at a step that is computed in full."""
        return 2 if self.guided else 1

    def rows(self, step: int) -> int:
        """Rows of a window that are computed at step `step` (from 0) of the table."""
        return self.full_rows if self.plan is None else int(self.plan[step])

    def remaining_rows(self, step: int, num_steps: int) -> int:
        """Rows of a window of the steps from `step` on, of `num_steps` in all."""
        return (num_steps - step) * self.full_rows if self.plan is None else sum(map(int, self.plan[step:]))

    def reuses_difference(self, first_step: int = 0) -> bool:
        """Whether a step from `first_step` on uses an earlier guidance difference again."""
        return self.guided and self.plan is not None and "1" in self.plan[first_step:]

    def start_state(self, table: SamplerTable, noise: torch.Tensor) -> torch.Tensor:
        """The state (1, 4, T, C, H, W) before the first step: noise, or the noisy source."""
        return start_state(table, noise, None if self.source is None else self.source.latents.to(noise.device))

    def model_condition(self, num_windows: int = 1) -> Condition:
        """The condition of each row of the model's batch.

        All windows with the condition come first; with guidance, all windows with the negative one follow.
        """
        conditions = [self.condition] * num_windows
        if self.guided and self.negative is not None:
            conditions += [self.negative] * num_windows
        return conditions[0] if len(conditions) == 1 else Condition.concat(conditions)


def start_noise(config: TransformerConfig, num_frames: int, seed: int) -> torch.Tensor:
    """(1, T, C, H, W) float32 on the CPU: the noise that a request with this seed starts from."""
    return NoiseStream(config, Windows.of(num_frames, config.num_frames), seed).start()


def denoise(
    transformer: Transformer,
    schedule: NoiseSchedule,
    generation: Generation,
    on_step: OnStep = None,
) -> torch.Tensor:
    """Generate the latents (1, T, C, H, W), float32 on the transformer's device.

    `on_step(steps done, steps in all)` is called after each step of all turns. Raises ValueError, before any work, for
    a generation that the checkpoint cannot do.
    """
    config = transformer.config
    generation.check(config)
    table, starts = generation.table(schedule), generation.turns(config)
    turn = generation.turn(config, 0, None)
    noise = NoiseStream(config, turn.windows(config), generation.seed)
    made = run_sampler(transformer, table, turn, noise.start(), noise.draw, _counted(on_step, 0, starts))
    for index in range(1, len(starts)):
        turn = generation.turn(config, index, made)
        on_turn = _counted(on_step, index, starts)
        made = join(made, run_sampler(transformer, table, turn, noise.start(), noise.draw, on_turn), starts[index])
    return made


def _counted(on_step: OnStep, turn: int, starts: Sequence[int]) -> OnStep:
    """`on_step` for the steps of one turn, which counts those of all turns."""
    if on_step is None:
        return None
    return lambda step, steps: on_step(turn * steps + step, len(starts) * steps)


def join(made: torch.Tensor, latents: torch.Tensor, start: int) -> torch.Tensor:
    """The latents `made` (1, T', C, H, W) of earlier turns, and after them those of the turn that begins at `start`.

    Of the frames that both have, the first half is known to the turn, and the others fade from one to the other: a
    window differs a little from the one before, also in parts that rest, and a cut would show.
    """
    overlap = made.shape[1] - start
    num_known = _num_known(overlap)
    num_faded = overlap - num_known
    share = (torch.arange(1, num_faded + 1, device=made.device) / (num_faded + 1)).view(-1, 1, 1, 1)
    faded = (1 - share) * made[:, start + num_known :] + share * latents[:, num_known:overlap]
    return torch.cat([made[:, : start + num_known], faded, latents[:, overlap:]], dim=1)


def _num_known(overlap: int) -> int:
    """How many of the frames that a turn shares with the one before are known to it."""
    return overlap - overlap // 2


@torch.no_grad()
def run_sampler(
    transformer: Transformer,
    table: SamplerTable,
    generation: Generation,
    start: torch.Tensor,
    draw_noise: Callable[[], torch.Tensor],
    on_step: OnStep = None,
) -> torch.Tensor:
    """The loop of `denoise` with noise from anywhere: `start` (1, T, C, H, W), then `draw_noise()` for each step that
    takes some. Seed, sampler and steps of `generation` are not used."""
    weight = next(transformer.parameters())
    state = generation.start_state(table, start).to(weight.device)
    known = None if generation.known is None else generation.known.to(weight.device)
    prediction = _Prediction(torch.zeros_like(state[:, LATENT]))
    for step in range(table.num_steps):
        coefficients = gather([table], [step]).to(weight.device)
        rows, latents = generation.rows(step), state[:, LATENT]
        shown = known.show(latents) if known is not None and transformer.config.clean_known_frames else latents
        prediction = _predict(transformer, generation, shown, coefficients.timesteps, rows, prediction)
        noise = prediction.noise
        if known is not None:
            noise = known.hold(noise, latents, coefficients.weights)
        fresh = draw_noise().to(weight.device) if table.draws_noise[step] else torch.zeros_like(noise)
        state = update(state, noise, prediction.variance, fresh, coefficients)
        if on_step is not None:
            on_step(step + 1, table.num_steps)
    return state[:, LATENT]


class _Prediction(NamedTuple):
    """Guided noise, variance channels and guidance difference of a step, (1, T, C, H, W) float32."""

    noise: torch.Tensor
    variance: torch.Tensor | None = None
    difference: torch.Tensor | None = None


def _predict(
    transformer: Transformer,
    generation: Generation,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    rows_per_window: int,
    last: _Prediction,
) -> _Prediction:
    """Run the transformer on `rows_per_window` rows of each window, whatever its own dtype.

    Without rows, the noise and the variance stay those of the `last` prediction, and the table does not read them.
    """
    if rows_per_window == 0:
        return last
    weight = next(transformer.parameters())
    windows = generation.windows(transformer.config)
    rows = len(windows) * rows_per_window
    outputs = transformer(
        windows.cut(latents.to(weight.dtype)).repeat(rows_per_window, 1, 1, 1, 1),
        timesteps.expand(rows),
        generation.model_condition(len(windows)).rows(slice(rows)).to(weight.device, weight.dtype),
        RowAdapters.of([generation.adapters] * rows),
    ).float()
    conditional = torch.arange(len(windows), device=weight.device)
    unconditional = conditional + rows - len(windows)
    channels = transformer.config.latent_channels
    scales = torch.full((len(windows),), generation.guidance_scale, device=weight.device)
    guided, variances = guide(outputs, conditional, unconditional, scales, channels)
    noise, difference = windows.average(guided), last.difference
    if rows_per_window < generation.full_rows and difference is not None:
        noise = noise + (generation.guidance_scale - 1) * difference
    elif generation.reuses_difference():
        difference = windows.average(guidance_difference(outputs, conditional, unconditional, channels))
    return _Prediction(noise, None if variances is None else windows.average(variances), difference)
