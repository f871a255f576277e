"""The requests of one forward pass, with their tensors joined. It is reused as long as its requests stay the same.

Shape legend: B requests, F frames of all of them, C H W latent.
"""

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from models.sampling.known_frames import KnownFrames
from models.sampling.table import LATENT
from models.transformer import Transformer
from worker.engine.active_request import ActiveRequest
from worker.engine.passes.batch_rows import BatchRows
from worker.engine.passes.graphs import StepGraphs
from worker.engine.passes.step import RunTransformer, Step, StepInputs
from worker.engine.ranks.shared_pass import SharedPass
from worker.engine.ranks.split import PassShape


class Batch:
    """`requests` are of one group, and none has completed its last step."""

    def __init__(self, requests: Sequence[ActiveRequest], transformer: Transformer) -> None:
        self.requests = tuple(requests)
        weight = next(transformer.parameters())
        self.device, self._dtype = weight.device, weight.dtype
        self._turns = [request.turn for request in requests]
        self._num_frames = [request.windows.num_frames for request in requests]
        self._join_tables()
        self._known = self._join_known()
        self._no_noise: Tensor | None = None
        states = torch.cat([request.state.to(self.device) for request in requests], dim=2)  # (1, 4, F, C, H, W)
        self._state = states.transpose(0, 2).contiguous()  # (F, 4, 1, C, H, W)
        self._difference = self._join_differences()
        self._rows: dict[tuple[int, ...], BatchRows] = {}  # by the rows of each request

    @property
    def is_current(self) -> bool:
        """Whether all requests are still in the turn of the joined tensors."""
        return self._turns == [request.turn for request in self.requests]

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
        parts = [
            (request.known or KnownFrames.none(request.state[:, LATENT])).to(self.device) for request in self.requests
        ]
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
        step = Step(
            run=run,
            windows=[request.windows for request in self.requests],
            rows=rows,
            rows_at_once=rows_at_once,
            dtype=self._dtype,
            clean_known_frames=transformer.config.clean_known_frames,
        )
        state, finite, *difference = (
            graphs.run(step, inputs) if graphs is not None and step.is_one_call else step(inputs)
        )
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

    def _inputs(self, rows: BatchRows) -> StepInputs:
        known, condition = self._known, rows.condition
        return StepInputs(
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
