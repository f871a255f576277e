"""A worker of the usual make that can be told to fail: `python -m tests.faults.worker <folder of flags> [lease]`.

A file `oom` in the folder makes one denoising step run out of memory; the request with the seed `POISON` kills the
process. With a lease in seconds the worker renews it four times as often: a test need not wait as long as people do.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import worker.claims
import worker.desk
import worker.queue_worker
from cli.logs import configure_logging
from jobs.settings import Settings
from worker.engine import Engine
from worker.lineup import Lineup
from worker.main import run_worker

POISON = 666


def inject(flags: Path) -> None:
    engine_step, lineup_step = Engine.step, Lineup.step

    def step(engine: Engine) -> Any:
        if any(seat.generation.seed == POISON for seat in engine._seats.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        return engine_step(engine)

    def step_of_rows(lineup: Lineup, *args: Any) -> Any:
        if take(flags / "oom"):
            raise torch.OutOfMemoryError("injected")
        return lineup_step(lineup, *args)

    Engine.step = step  # type: ignore[method-assign]
    Lineup.step = step_of_rows  # type: ignore[method-assign]


def take(flag: Path) -> bool:
    """Whether the flag was there; it is taken by one process only."""
    try:
        flag.unlink()
    except FileNotFoundError:
        return False
    return True


def shorten_lease(seconds: int) -> None:
    for module in (worker.claims, worker.queue_worker, worker.desk):
        module.LEASE_SECONDS = seconds  # type: ignore[attr-defined]
    worker.desk.BEAT_SECONDS = seconds / 4


if __name__ == "__main__":
    torch.set_num_threads(1)
    inject(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        shorten_lease(int(sys.argv[2]))
    configure_logging("worker", "info")
    run_worker(Settings())
