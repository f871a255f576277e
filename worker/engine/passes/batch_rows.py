"""The rows of the model's batch of one step, and which frames they are of.

Requests differ in the rows that they take: windows, guidance, and a speed plan decide.

Shape legend: B requests, F frames of all of them, W windows of L frames that are computed, M rows of the model's batch
(W, and another W of requests that compute both rows).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.adapters.row_adapters import RowAdapters
from models.conditioning import Condition
from worker.engine.active_request import ActiveRequest


@dataclass(frozen=True)
class BatchRows:
    """The conditional rows of a request come first, then its unconditional rows.

    Attributes:
        window_counts: The computed windows of each request, 0 for one that computes no row.
        frame_of_row: (M, L)
        conditional: (W,)
        unconditional: (W,)
        scales: (W,), the guidance scales.
        condition: Of each row. Empty without rows.
        adapters: Of each row. None where no row has any.
        reuse_scales: (F, 1, 1, 1, 1), by which the remembered guidance difference counts. None where no request of the
            batch has one.
        is_full: (F, 1, 1, 1, 1) bool, whether this step computes a guidance difference. None likewise.
    """

    window_counts: tuple[int, ...]
    frame_of_row: Tensor
    conditional: Tensor
    unconditional: Tensor
    scales: Tensor
    condition: Condition
    adapters: RowAdapters | None
    reuse_scales: Tensor | None
    is_full: Tensor | None

    @property
    def count(self) -> int:
        """M."""
        return len(self.frame_of_row)

    @staticmethod
    def of(requests: Sequence[ActiveRequest], device: torch.device) -> "BatchRows":
        """The rows of the next step of `requests`."""
        frames: list[list[int]] = []
        conditional: list[int] = []
        unconditional: list[int] = []
        first_frame = 0
        for request in requests:
            windows, first_row = request.windows, len(frames)
            starts = [first_frame + start for start in windows.starts] * (request.rows // len(windows))
            frames += [list(range(start, start + windows.length)) for start in starts]
            if request.rows:
                conditional += range(first_row, first_row + len(windows))
                unconditional += range(len(frames) - len(windows), len(frames))
            first_frame += windows.num_frames
        computing = [request for request in requests if request.rows]
        scales = [request.generation.guidance_scale for request in computing for _ in request.windows.starts]
        reuse_scales, is_full = _reuse(requests, device)
        return BatchRows(
            window_counts=tuple(len(request.windows) if request.rows else 0 for request in requests),
            frame_of_row=torch.tensor(frames, device=device),
            conditional=torch.tensor(conditional, device=device),
            unconditional=torch.tensor(unconditional, device=device),
            scales=torch.tensor(scales, device=device),
            condition=_join_conditions(computing),
            adapters=RowAdapters.of([each.generation.adapters for each in computing for _ in range(each.rows)]),
            reuse_scales=reuse_scales,
            is_full=is_full,
        )


def _join_conditions(requests: Sequence[ActiveRequest]) -> Condition:
    conditions = [request.condition.rows(slice(request.rows)) for request in requests]
    if len(conditions) == 1:
        return conditions[0]
    return Condition.concat(conditions) if conditions else Condition()


def _reuse(requests: Sequence[ActiveRequest], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    if all(request.difference is None for request in requests):
        return None, None
    scales, is_full = [], []
    for request in requests:
        reuses = request.difference is not None and 0 < request.rows < request.full_rows
        scales += [request.generation.guidance_scale - 1 if reuses else 0.0] * request.windows.num_frames
        is_full += [request.rows == request.full_rows] * request.windows.num_frames
    shape = (-1, 1, 1, 1, 1)
    return torch.tensor(scales, device=device).view(shape), torch.tensor(is_full, device=device).view(shape)
