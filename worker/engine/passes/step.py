"""One step of a batch, as a function of tensors, so that a CUDA graph can replay it.

Requests may differ in their number of frames, so each frame is a row of the sampler's update, which works on every
element alone. The model's batch is made of windows of frames.

Shape legend: B requests, F frames of all of them, W windows of L frames, M rows of the model's batch
(`worker.engine.passes.batch_rows`), C H W latent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.adapters.row_adapters import RowAdapters
from models.conditioning import Condition
from models.sampling.guidance import guidance_difference, guide
from models.sampling.known_frames import KnownFrames
from models.sampling.table import LATENT, NUM_INPUTS, NUM_STATES
from models.sampling.update import StepCoefficients, update
from models.sampling.windows import Windows
from worker.engine.passes.batch_rows import BatchRows

RunTransformer = Callable[[Tensor, Tensor, Condition, RowAdapters | None], Tensor]


class StepInputs(NamedTuple):
    """Every tensor that a step reads, apart from the weights."""

    state: Tensor  # (F, 4, 1, C, H, W)
    coefficients: Tensor  # (F, 27)
    fresh_noise: Tensor  # (F, 1, C, H, W)
    frame_of_row: Tensor  # (M, L)
    request_of_frame: Tensor  # (F,)
    conditional: Tensor  # (W,)
    unconditional: Tensor  # (W,)
    scales: Tensor  # (W,)
    labels: Tensor | None  # (M,)
    text: Tensor | None
    text_mask: Tensor | None
    known_latents: Tensor | None  # (F, 1, C, H, W)
    is_known: Tensor | None  # (F, 1)
    difference: Tensor | None  # (F, 1, C, H, W)
    reuse_scales: Tensor | None  # (F, 1, 1, 1, 1)
    is_full: Tensor | None  # (F, 1, 1, 1, 1)


@dataclass(frozen=True)
class Step:
    """The step of a batch with given rows.

    Attributes:
        run: The transformer, or several that share its rows or frames.
        windows: Of each request.
        rows_at_once: Maximum rows of one call of the transformer.
        dtype: That of the transformer.
        clean_known_frames: As in the transformer's config.
    """

    run: RunTransformer
    windows: Sequence[Windows]
    rows: BatchRows
    rows_at_once: int
    dtype: torch.dtype
    clean_known_frames: bool

    @property
    def is_one_call(self) -> bool:
        """Whether the shapes of the inputs determine the step.

        Each request has one window with rows, no call is divided, and no row has an adapter.
        """
        rows = self.rows
        return rows.count <= self.rows_at_once and set(rows.window_counts) == {1} and rows.adapters is None

    def __call__(self, parts: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """Compute a step from the fields of `StepInputs`.

        Returns:
            The next state (F, 4, 1, C, H, W), which requests (B,) have finite latents in it, and, where there is one,
            the next guidance difference (F, 1, C, H, W).
        """
        inputs = StepInputs._make(parts)
        coefficients = _unpack(inputs.coefficients)
        latents, known = inputs.state[:, LATENT], None
        if inputs.known_latents is not None and inputs.is_known is not None:
            known = KnownFrames(inputs.known_latents, inputs.is_known)
        noise, variance, difference = torch.zeros_like(latents), None, inputs.difference
        if self.rows.count:
            shown = known.show(latents) if known is not None and self.clean_known_frames else latents
            noise, variance, difference = self._predict(inputs, shown, coefficients)
        if known is not None:
            noise = known.hold(noise, latents, coefficients.weights)
        state = update(inputs.state, noise, variance, inputs.fresh_noise, coefficients)
        finite = self._are_finite(state[:, LATENT], inputs.request_of_frame)
        return (state, finite) if difference is None else (state, finite, difference)

    def _predict(
        self, inputs: StepInputs, latents: Tensor, coefficients: StepCoefficients
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Guided noise, variance and guidance difference for `latents`, (F, 1, C, H, W) each.

        They are zero for requests without a row.
        """
        latents = latents[:, 0].to(self.dtype)[inputs.frame_of_row]
        timesteps = coefficients.timesteps[inputs.frame_of_row[:, 0]]
        condition = Condition(inputs.labels, inputs.text, inputs.text_mask)
        outputs = self._call(latents, timesteps, condition).float()
        channels, pairs = inputs.state.shape[3], (inputs.conditional, inputs.unconditional)
        guided, variances = guide(outputs, *pairs, inputs.scales, channels)
        noise, difference = self._average(guided), inputs.difference
        if difference is not None and inputs.reuse_scales is not None and inputs.is_full is not None:
            noise = noise + inputs.reuse_scales * difference
            computed = self._average(guidance_difference(outputs, *pairs, channels))
            difference = torch.where(inputs.is_full, computed, difference)
        return noise, None if variances is None else self._average(variances), difference

    def _call(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The transformer's outputs of all rows, (M, L, ..., H, W)."""
        adapters, at_once = self.rows.adapters, self.rows_at_once
        if len(latents) <= at_once:
            return self.run(latents, timesteps, condition, adapters)
        outputs = [
            self.run(
                latents[part], timesteps[part], condition.rows(part), None if adapters is None else adapters.part(part)
            )
            for part in (slice(start, start + at_once) for start in range(0, len(latents), at_once))
        ]
        return torch.cat(outputs)

    def _average(self, windows: Tensor) -> Tensor:
        """(W, L, C, H, W) -> (F, 1, C, H, W): the frames of each request, averaged over its windows; zero without."""
        counts = list(self.rows.window_counts)
        if set(counts) == {1}:
            return windows.flatten(0, 1).unsqueeze(1)
        frames = [
            each.average(part) if len(part) else part.new_zeros(1, each.num_frames, *part.shape[2:])
            for each, part in zip(self.windows, torch.split(windows, counts), strict=True)
        ]
        return torch.cat(frames, dim=1).transpose(0, 1)

    def _are_finite(self, latents: Tensor, request_of_frame: Tensor) -> Tensor:
        """(F, 1, C, H, W) and (F,) -> (B,)."""
        is_broken = (~latents.flatten(1).isfinite().all(dim=1)).float()
        num_broken = torch.zeros(len(self.windows), device=latents.device)
        return num_broken.index_add_(0, request_of_frame, is_broken) == 0


def _unpack(coefficients: Tensor) -> StepCoefficients:
    timesteps, weights, log_variances = torch.split(coefficients, [1, NUM_STATES * NUM_INPUTS, 2], dim=1)
    return StepCoefficients(timesteps[:, 0], torch.unflatten(weights, 1, (NUM_STATES, NUM_INPUTS)), log_variances)
