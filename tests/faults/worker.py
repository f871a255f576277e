"""A worker with injected faults: `python -m tests.faults.worker <folder of flags> [lease]`.

A file `oom` in the folder makes one denoising step run out of memory. A request with the seed `POISON` kills the
process at its first step, one with `POISON_TO_PREPARE` while it is prepared. A file `clock` holds the seconds by which
the wall clock of the process is wrong. `lease` shortens the lease, in seconds, so that tests take less time; it is
renewed four times as often.
"""

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rq.executions
import rq.job
import rq.registry
import rq.worker.base
import torch

import jobs.queue.rq_adapter
import worker.dispatch.dispatcher
import worker.preparation.preparer
from cli.logs import configure_logging
from jobs.settings import Settings
from jobs.videos.record import VideoRequest
from models.generate import Generation
from worker.engine.passes.batch import Batch
from worker.main import run_worker

POISON, POISON_TO_PREPARE = 666, 667


def inject(flags: Path) -> None:
    original = Batch.step

    def step(batch: Batch, *args: Any) -> Any:
        if any(request.generation.seed == POISON for request in batch.requests):
            os.kill(os.getpid(), signal.SIGKILL)
        if take(flags / "oom"):
            raise torch.OutOfMemoryError("injected")
        return original(batch, *args)

    Batch.step = step  # type: ignore[method-assign]
    to_generation = worker.preparation.preparer.to_generation

    def prepare(request: VideoRequest, *args: Any) -> Generation:
        if request.seed == POISON_TO_PREPARE:
            os.kill(os.getpid(), signal.SIGKILL)
        return to_generation(request, *args)

    worker.preparation.preparer.to_generation = prepare


def shift_clock(flag: Path) -> None:
    wall_clock = time.time

    def offset() -> float:
        try:
            return float(flag.read_text(encoding="utf-8") or 0)
        except FileNotFoundError:
            return 0.0

    time.time = lambda: wall_clock() + offset()
    for module in (jobs.queue.rq_adapter, rq.executions, rq.job, rq.worker.base, rq.registry):
        module.now = lambda: datetime.fromtimestamp(time.time(), UTC)  # type: ignore[attr-defined]


def take(flag: Path) -> bool:
    """Remove the flag, and return whether it was there. Only one process gets True."""
    try:
        flag.unlink()
    except FileNotFoundError:
        return False
    return True


def shorten_lease(seconds: int) -> None:
    for module in (jobs.queue.rq_adapter, worker.dispatch.dispatcher):
        module.LEASE_SECONDS = seconds  # type: ignore[attr-defined]
    worker.dispatch.dispatcher.BEAT_SECONDS = seconds / 4


def main() -> None:
    torch.set_num_threads(1)
    inject(Path(sys.argv[1]))
    shift_clock(Path(sys.argv[1]) / "clock")
    if len(sys.argv) > 2:
        shorten_lease(int(sys.argv[2]))
    configure_logging("worker", "info")
    run_worker(Settings())


if __name__ == "__main__":
    main()
