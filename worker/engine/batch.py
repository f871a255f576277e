"""The requests of one forward pass, with their tensors joined. It is reused as long as its requests stay the same.

Requests may differ in their number of frames, so their states are joined frame by frame: each frame is a row of the
sampler's update, which works on every element alone. The model's batch is made of windows of frames.

Shape legend: B requests, F frames of all of them, W windows of L frames, M rows of the model's batch
(`worker.engine.batch_rows`), C H W latent.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from models.adapters.row_adapters import RowAdapters
from models.conditioning import Condition
from models.sampling.guidance import guidance_difference, guide
from models.sampling.known_frames import KnownFrames
from models.sampling.table import LATENT, NUM_INPUTS, NUM_STATES
from models.sampling.update import StepCoefficients, update
from models.transformer import Transformer
from worker.engine.active_request import ActiveRequest
from worker.engine.batch_rows import BatchRows
from worker.engine.graphs import StepGraphs
from worker.engine.ranks.shared_pass import SharedPass
from worker.engine.ranks.split import PassShape

RunTransformer = Callable[[Tensor, Tensor, Condition, RowAdapters | None], Tensor]


class Batch:
    """`requests` are of one group, and none has completed its last step."""

    def __init__(self, requests: Sequence[ActiveRequest], transformer: Transformer) -> None:
        self.requests = tuple(requests)
        weight = next(transformer.parameters())
        self.device, self._dtype = weight.device, weight.dtype
        self._num_frames = [request.windows.num_frames for request in requests]
        self._join_tables()
        self._known = self._join_known()
        self._no_noise: Tensor | None = None
        states = torch.cat([request.state.to(self.device) for request in requests], dim=2)  # (1, 4, F, C, H, W)
        self._state = states.transpose(0, 2).contiguous()  # (F, 4, 1, C, H, W)
        self._difference = self._join_differences()
        self._rows: dict[tuple[int, ...], BatchRows] = {}  # by the rows of each request

    def _join_tables(self) -> None:
        """Concatenate the sampler tables, so that a step is one indexing with the current table row of each frame."""
        tables = [request.table for request in self.requests]
        starts = torch.tensor([0, *(table.num_steps for table in tables[:-1])]).cumsum(0)
        rows = starts + torch.tensor([request.step for request in self.requests])
        counts = torch.tensor(self._num_frames)
        self._table_row = rows.repeat_interleave(counts).to(self.device)  # (F,)
        self._request_of_frame = torch.arange(len(counts)).repeat_interleave(counts).to(self.device)
        # All numbers of a step lie side by side, so that the device looks them up at once.
        parts = [torch.cat([t.timesteps[:, None], t.weights.flatten(1), t.log_variances], dim=1) for t in tables]
        self._table = torch.cat(parts).to(self.device)

    def _join_known(self) -> KnownFrames | None:
        """The known frames of all requests, each frame a row: (F, 1, C, H, W). None when no request has any."""
        if all(request.known is None for request in self.requests):
            return None
        nothing = [
            KnownFrames(torch.zeros_like(request.state[:, LATENT]), torch.zeros(1, num_frames, dtype=torch.bool))
            for request, num_frames in zip(self.requests, self._num_frames, strict=True)
        ]
        parts = [(request.known or none).to(self.device) for request, none in zip(self.requests, nothing, strict=True)]
        latents = torch.cat([part.latents for part in parts], dim=1)
        is_known = torch.cat([part.is_known for part in parts], dim=1)
        return KnownFrames(latents.transpose(0, 1), is_known.transpose(0, 1))

    def _join_differences(self) -> Tensor | None:
        """The guidance differences (F, 1, C, H, W) of all requests. None when no request has one."""
        if all(request.difference is None for request in self.requests):
            return None
        parts = [
            torch.zeros_like(request.state[:, LATENT]) if request.difference is None else request.difference
            for request in self.requests
        ]
        return torch.cat([part.to(self.device) for part in parts], dim=1).transpose(0, 1).contiguous()

    def _next_rows(self) -> BatchRows:
        key = tuple(request.rows for request in self.requests)
        if key not in self._rows:
            self._rows[key] = BatchRows.of(self.requests, self.device)
        return self._rows[key]

    @torch.no_grad()
    def step(
        self,
        transformer: Transformer,
        rows_at_once: int,
        graphs: StepGraphs | None = None,
        shared: SharedPass | None = None,
    ) -> Tensor:
        """Advance every request by one step, with at most `rows_at_once` rows in one call of the transformer.

        The step is replayed from `graphs` if they are given and it is one call without adapters. Where `shared` divides
        the pass among several GPUs, each of them replays its part, and the rest of the step runs without a graph. When
        it raises, no request has changed.

        Returns:
            (B,) bool on the device: whether the latents of each request are finite.
        """
        rows = self._next_rows()
        inputs = self._inputs(rows)
        run: RunTransformer = transformer
        if shared is not None and rows.adapters is None and shared.divides(self._shape(rows, rows_at_once)):
            run, graphs = shared, None

        def compute(parts: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
            return self._compute(run, _Inputs._make(parts), rows, rows_at_once)

        if graphs is not None and self._is_one_call(rows, rows_at_once):
            state, finite, *difference = graphs.run(compute, inputs)
        else:
            state, finite, *difference = compute(inputs)
        self._state, self._table_row = state, self._table_row + 1
        self._difference = difference[0] if difference else None
        states = torch.split(state, self._num_frames)
        differences = torch.split(difference[0], self._num_frames) if difference else repeat(None)
        for request, part, kept in zip(self.requests, states, differences, strict=False):
            request.advance(part.transpose(0, 2), None if kept is None else kept.transpose(0, 1))
        return finite

    def _shape(self, rows: BatchRows, rows_at_once: int) -> PassShape:
        """The shape of a step's first call of the transformer."""
        text = rows.condition.text
        frames = rows.frame_of_row.shape[1] if rows.count else 0
        return PassShape(min(rows.count, rows_at_once), frames, 0 if text is None else text.shape[1])

    def _inputs(self, rows: BatchRows) -> "_Inputs":
        known, condition = self._known, rows.condition
        return _Inputs(
            state=self._state,
            coefficients=self._table[self._table_row],
            fresh_noise=self._fresh_noise(),
            frame_of_row=rows.frame_of_row,
            request_of_frame=self._request_of_frame,
            conditional=rows.conditional,
            unconditional=rows.unconditional,
            scales=rows.scales,
            labels=condition.labels,
            text=condition.text,
            text_mask=condition.text_mask,
            known_latents=None if known is None else known.latents,
            is_known=None if known is None else known.is_known,
            difference=self._difference,
            reuse_scales=rows.reuse_scales,
            is_full=rows.is_full,
        )

    def _is_one_call(self, rows: BatchRows, rows_at_once: int) -> bool:
        """Whether the shapes of the inputs determine the step.

        Each request has one window with rows, no call is divided, and no row has an adapter.
        """
        return rows.count <= rows_at_once and set(rows.window_counts) == {1} and rows.adapters is None

    def _compute(
        self, run: RunTransformer, inputs: "_Inputs", rows: BatchRows, rows_at_once: int
    ) -> tuple[Tensor, ...]:
        """The next state (F, 4, 1, C, H, W), which requests (B,) have finite latents in it, and, where there is one,
        the next guidance difference (F, 1, C, H, W)."""
        coefficients = _unpack(inputs.coefficients)
        latents = inputs.state[:, LATENT]
        noise, variance, difference = torch.zeros_like(latents), None, inputs.difference
        if rows.count:
            noise, variance, difference = self._predict(run, inputs, coefficients, rows, rows_at_once)
        if inputs.known_latents is not None and inputs.is_known is not None:
            noise = KnownFrames(inputs.known_latents, inputs.is_known).hold(noise, latents, coefficients.weights)
        state = update(inputs.state, noise, variance, inputs.fresh_noise, coefficients)
        finite = self._are_finite(state[:, LATENT], inputs.request_of_frame)
        return (state, finite) if difference is None else (state, finite, difference)

    def _predict(
        self,
        run: RunTransformer,
        inputs: "_Inputs",
        coefficients: StepCoefficients,
        batch_rows: BatchRows,
        rows_at_once: int,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Guided noise, variance and guidance difference, (F, 1, C, H, W). Zero for requests without a row."""
        rows = inputs.state[:, LATENT, 0].to(self._dtype)[inputs.frame_of_row]
        timesteps = coefficients.timesteps[inputs.frame_of_row[:, 0]]
        condition = Condition(inputs.labels, inputs.text, inputs.text_mask)
        outputs = _call(run, rows, timesteps, condition, batch_rows.adapters, rows_at_once).float()
        channels, counts = inputs.state.shape[3], batch_rows.window_counts
        pairs = (inputs.conditional, inputs.unconditional)
        guided, variances = guide(outputs, *pairs, inputs.scales, channels)
        noise, difference = self._average(guided, counts), inputs.difference
        if difference is not None and inputs.reuse_scales is not None and inputs.is_full is not None:
            noise = noise + inputs.reuse_scales * difference
            computed = self._average(guidance_difference(outputs, *pairs, channels), counts)
            difference = torch.where(inputs.is_full, computed, difference)
        return noise, None if variances is None else self._average(variances, counts), difference

    def _average(self, windows: Tensor, counts: Sequence[int]) -> Tensor:
        """(W, L, C, H, W) -> (F, 1, C, H, W): the frames of each request, averaged over its windows; zero without."""
        if set(counts) == {1}:
            return windows.flatten(0, 1).unsqueeze(1)
        frames = [
            request.windows.average(part) if len(part) else part.new_zeros(1, num_frames, *part.shape[2:])
            for request, part, num_frames in zip(
                self.requests, torch.split(windows, list(counts)), self._num_frames, strict=True
            )
        ]
        return torch.cat(frames, dim=1).transpose(0, 1)

    def _are_finite(self, latents: Tensor, request_of_frame: Tensor) -> Tensor:
        """(F, 1, C, H, W) and (F,) -> (B,)."""
        is_broken = (~latents.flatten(1).isfinite().all(dim=1)).float()
        num_broken = torch.zeros(len(self.requests), device=self.device)
        return num_broken.index_add_(0, request_of_frame, is_broken) == 0

    def _fresh_noise(self) -> Tensor:
        """(F, 1, C, H, W), zero for requests whose step takes no noise."""
        shape = self._state[:, LATENT].shape
        drawn = {
            index: noise for index, request in enumerate(self.requests) if (noise := request.fresh_noise()) is not None
        }
        if not drawn:
            self._no_noise = torch.zeros(shape, device=self.device) if self._no_noise is None else self._no_noise
            return self._no_noise
        noise = torch.zeros(shape, pin_memory=self.device.type == "cuda")
        for index, part in enumerate(torch.split(noise, self._num_frames)):
            if index in drawn:
                part.copy_(drawn[index].transpose(0, 1))
        return noise.to(self.device, non_blocking=True)


class _Inputs(NamedTuple):
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


def _unpack(coefficients: Tensor) -> StepCoefficients:
    timesteps, weights, log_variances = torch.split(coefficients, [1, NUM_STATES * NUM_INPUTS, 2], dim=1)
    return StepCoefficients(timesteps[:, 0], torch.unflatten(weights, 1, (NUM_STATES, NUM_INPUTS)), log_variances)


def _call(
    run: RunTransformer,
    latents: Tensor,
    timesteps: Tensor,
    condition: Condition,
    adapters: RowAdapters | None,
    rows_at_once: int,
) -> Tensor:
    if len(latents) <= rows_at_once:
        return run(latents, timesteps, condition, adapters)
    parts = [slice(start, start + rows_at_once) for start in range(0, len(latents), rows_at_once)]
    return torch.cat(
        [
            run(latents[part], timesteps[part], condition.rows(part), None if adapters is None else adapters.part(part))
            for part in parts
        ]
    )
