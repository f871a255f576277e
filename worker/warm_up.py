"""Before the first request: how long a pass takes by its rows, and on CUDA how many rows there is memory for.

T frames, C H W latent.
"""

import logging
from collections.abc import Callable
from time import monotonic

import torch

from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.config import Conditioning
from worker.flight import Moment
from worker.memory import RowLimit, is_out_of_memory
from worker.pace import Pace
from worker.step_curve import TRUSTED_AFTER

logger = logging.getLogger(__name__)

# Of each size; `Pace` leaves out the first.
_PASSES = 1 + TRUSTED_AFTER
# What passes may take of the free memory: measured sizes leave out what other shapes and lengths of text need more.
_SHARE_OF_MEMORY = 0.9


def warm_up(checkpoint: Checkpoint, pace: Pace, max_rows: int, max_seconds: float, deterministic: bool) -> None:
    """Time passes of 1, 2, 4 ... rows at full length into `pace.curve`, until there is no time left for the next.

    On CUDA `pace.limit` becomes what there is memory for beside decoding. When `deterministic`, rows that are more than
    one request's go one after the other, as they do at work.
    """
    give_up_at = monotonic() + max_seconds
    rows, seconds = 1, 0.0
    try:
        while rows <= max_rows and monotonic() + 2 * _PASSES * seconds <= give_up_at:  # twice the rows, twice as long
            for _ in range(_PASSES):
                parts = [2] * (rows // 2) if deterministic and rows > 2 else [rows]
                seconds = sum(_pass(checkpoint, part) for part in parts)
                pace.observe(rows, seconds)
                if monotonic() > give_up_at:
                    break
            rows *= 2
        _limit_to_memory(checkpoint, pace, max_rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        pace.limit.refused(rows)
    torch.cuda.empty_cache()


def _limit_to_memory(checkpoint: Checkpoint, pace: Pace, max_rows: int) -> None:
    device = next(checkpoint.transformer.parameters()).device
    if device.type != "cuda":
        return  # an operating system gives memory on credit: what is left cannot be measured
    one = _peak_bytes(device, lambda: _pass(checkpoint, 1))
    two = _peak_bytes(device, lambda: _pass(checkpoint, 2))
    decoding = _peak_bytes(device, lambda: _decode(checkpoint))
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0] * _SHARE_OF_MEMORY - decoding - (2 * one - two)
    rows = int(free / max(two - one, 1))
    logger.info("there is memory for %d rows of %.2f GiB, beside %.2f GiB", rows, (two - one) / 2**30, decoding / 2**30)
    pace.limit = RowLimit(max(1, min(max_rows, rows)))


def _pass(checkpoint: Checkpoint, rows: int) -> float:
    """Seconds of a pass of `rows` rows at full length."""
    config = checkpoint.config
    weight = next(checkpoint.transformer.parameters())
    size = config.latent_size
    latents = weight.new_zeros(rows, config.num_frames, config.latent_channels, size, size)
    condition = _longest_condition(checkpoint, rows).to(weight.device, weight.dtype)
    started = Moment(weight.device)
    with torch.no_grad():
        checkpoint.transformer(latents, torch.zeros(rows, device=weight.device), condition)
    ended = Moment(weight.device)
    ended.wait()
    return ended.seconds_since(started)


def _longest_condition(checkpoint: Checkpoint, rows: int) -> Condition:
    config = checkpoint.config
    if config.conditioning is Conditioning.CLASS:
        return Condition(labels=torch.zeros(rows, dtype=torch.long))
    if config.conditioning is Conditioning.TEXT:
        return Condition(text=torch.zeros(rows, checkpoint.settings.max_tokens or 1, config.text_width or 1))
    return Condition()


def _decode(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    size = config.latent_size
    checkpoint.vae.decode(torch.zeros(1, config.num_frames, config.latent_channels, size, size))


def _peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """What `work` takes at most, beyond what is taken already."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
