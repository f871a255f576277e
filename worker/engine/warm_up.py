"""Measurements before the first request: the latency of passes by rows, and on CUDA the rows that fit into memory.

Shape legend: T frames, C H W latent.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial

import torch

from models.checkpoint.load import Checkpoint
from worker.device import free_cached_memory, is_out_of_memory
from worker.engine.active_request import ActiveRequest
from worker.engine.passes.batch import Batch
from worker.engine.passes.graphs import StepGraphs
from worker.engine.passes.in_flight import DeviceTimestamp
from worker.engine.profile.exact_rows import count_sharing, find_exact_rows
from worker.engine.profile.group_profile import GroupProfile
from worker.engine.profile.latency_model import TRUSTED_AFTER
from worker.engine.profile.memory_limit import RowLimit
from worker.engine.profile.samples import sample_requests
from worker.engine.ranks.shared_pass import SharedPass

logger = logging.getLogger(__name__)

# Passes of each size; `GroupProfile` leaves out the first.
_PASSES = 1 + TRUSTED_AFTER
# Share of the free memory for passes: other shapes and longer texts need more than what was measured.
_MEMORY_SHARE = 0.9


def warm_up(
    checkpoint: Checkpoint,
    profile: GroupProfile,
    max_rows: int,
    max_seconds: float,
    deterministic: bool,
    clock: Callable[[], float],
    graphs: StepGraphs | None = None,
    shared: SharedPass | None = None,
) -> None:
    """Time steps of 1, 2, 4 ... rows at full length, until there is no time left for the next size.

    They run from `graphs` as in the engine, which are captured on the way. On CUDA the row limit of the profile becomes
    what fits into memory beside decoding. When `deterministic`, the row counts that are exact are measured first; the
    requests run in the passes that those allow. `shared` divides passes among several GPUs.
    """
    deadline = clock() + max_seconds
    rows, seconds = 1, 0.0
    try:
        if deterministic:
            profile.exact_rows = find_exact_rows(checkpoint, max_rows, is_late=lambda: clock() > deadline)
            logger.info("rows that share a pass in deterministic mode: %s", sorted(profile.exact_rows) or "none")
        while rows <= max_rows and clock() + 2 * _PASSES * seconds <= deadline:  # twice the rows take twice as long
            batches = [Batch(part, checkpoint.transformer) for part in _parts(checkpoint, profile, rows, deterministic)]
            for _ in range(_PASSES):
                seconds = sum(_step(checkpoint, batch, graphs, shared) for batch in batches)
                profile.observe(rows, seconds)
                if clock() > deadline:
                    break
            rows *= 2
        _limit_to_memory(checkpoint, profile, max_rows, graphs)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        profile.row_limit.record_refusal(rows)
    free_cached_memory()


def _parts(
    checkpoint: Checkpoint, profile: GroupProfile, rows: int, deterministic: bool
) -> Iterator[list[ActiveRequest]]:
    """Requests of `rows` rows in all, as they share passes."""
    requests = sample_requests(checkpoint, rows)
    while requests:
        count = len(requests)
        if deterministic:
            count = count_sharing([request.rows for request in requests], profile.exact_rows, rows)
        yield requests[:count]
        requests = requests[count:]


def _limit_to_memory(checkpoint: Checkpoint, profile: GroupProfile, max_rows: int, graphs: StepGraphs | None) -> None:
    device = next(checkpoint.transformer.parameters()).device
    if device.type != "cuda":
        return  # operating systems overcommit memory: what is left cannot be measured
    batches = [Batch(sample_requests(checkpoint, rows), checkpoint.transformer) for rows in (1, 2)]
    one, two = (_peak_bytes(device, partial(_step, checkpoint, batch, None)) for batch in batches)
    decoding = _peak_bytes(device, lambda: _decode(checkpoint))
    free_cached_memory()
    bytes_per_row, fixed_bytes = two - one, decoding + 2 * one - two
    if graphs is not None:
        bytes_per_row *= 2  # the graphs' pool keeps the memory of a pass, beside that of a pass without a graph
    free = torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE - fixed_bytes
    rows = int(free / max(bytes_per_row, 1))
    logger.info("memory for %d rows of %.2f GiB, beside %.2f GiB", rows, bytes_per_row / 2**30, decoding / 2**30)
    profile.row_limit = RowLimit(max(1, min(max_rows, rows)))


def _step(checkpoint: Checkpoint, batch: Batch, graphs: StepGraphs | None, shared: SharedPass | None = None) -> float:
    """Run a step of `batch`, and return its seconds."""
    started = DeviceTimestamp(batch.device)
    batch.step(checkpoint.transformer, sum(request.rows for request in batch.requests), graphs, shared)
    ended = DeviceTimestamp(batch.device)
    ended.wait()
    return ended.seconds_since(started)


def _decode(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    size = config.latent_size
    checkpoint.vae.decode(torch.zeros(1, config.num_frames, config.latent_channels, size, size))


def _peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """The additional memory that `work` takes at its peak."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
