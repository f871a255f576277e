"""Numbers of rows with which a pass gives each row the same numbers, bit for bit, as a pass of that row alone.

A product's kernel is chosen by its shapes, and another kernel may add in another order. On a GPU the kernels for many
sizes agree, which only a measurement shows. In deterministic mode requests share such passes, and otherwise run alone.

Shape legend: R rows, T frames, C H W latent.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from models.checkpoint.load import Checkpoint
from worker.engine.profile.samples import longest_condition


@torch.no_grad()
def find_exact_rows(checkpoint: Checkpoint, max_rows: int, is_late: Callable[[], bool]) -> frozenset[int]:
    """Compare passes of 1, 2, 4 ... rows of random numbers, all rows equal, at full length on a CUDA device.

    Sizes that are left out, on other devices all and otherwise those after `is_late`, count as not exact.
    """
    device = next(checkpoint.transformer.parameters()).device
    if device.type != "cuda":
        return frozenset()
    alone = _run(checkpoint, 1)
    exact = {1}
    rows = 2
    while rows <= max_rows and not is_late():
        if all(torch.equal(row, alone[0]) for row in _run(checkpoint, rows)):
            exact.add(rows)
        rows *= 2
    return frozenset(exact)


def count_sharing(request_rows: Sequence[int], exact_rows: Collection[int], max_rows: int) -> int:
    """How many of the first requests, at least one, share a pass in deterministic mode.

    Each of them, and all together, must have a number of rows that is exact.
    """
    sharing, total = 1, 0
    for count, rows in enumerate(request_rows, start=1):
        total += rows
        if rows not in exact_rows or total > max_rows:
            break
        if total in exact_rows:
            sharing = count
    return sharing


def _run(checkpoint: Checkpoint, rows: int) -> Tensor:
    """(R, T, C, H, W)"""
    config = checkpoint.config
    weight = next(checkpoint.transformer.parameters())
    generator = torch.Generator().manual_seed(0)
    size = config.latent_size
    shape = (1, config.num_frames, config.latent_channels, size, size)
    latents = torch.randn(shape, generator=generator).to(weight.device, weight.dtype).repeat(rows, 1, 1, 1, 1)
    timesteps = torch.full((rows,), 500.0, device=weight.device)
    condition = longest_condition(checkpoint, rows).to(weight.device, weight.dtype)
    outputs: Tensor = checkpoint.transformer(latents, timesteps, condition)
    return outputs
