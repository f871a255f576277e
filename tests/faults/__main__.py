"""The long form: every fault many times at random moments, with the usual lease, and a storm of all.

`python -m tests.faults [runs of each] [part of a name]` prints a table; the exit status is 1 when anything was lost.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.long_scenarios import LONG_FAULTS
from tests.faults.scenarios import FAULTS, Losses, form_of, storm
from tests.faults.stand import Stand, standing

Row = tuple[str, int, Losses, float]

STORM_VIDEOS = 200
STORM_SECONDS = 120.0
STORM = f"{STORM_VIDEOS} videos, {STORM_SECONDS:.0f} s of random kills"


def main(runs: int, only: str = "") -> int:
    rows: list[Row] = []
    chance = random.Random()
    with tempfile.TemporaryDirectory(prefix="framedit-faults-") as folder:
        shared = dict(FAULTS) | {name: fault for name, (fault, settings) in LONG_FAULTS.items() if settings is None}
        chosen = {name: fault for name, fault in shared.items() if only in name}
        if chosen:
            with standing(Path(folder) / "each") as stand:
                for name, fault in chosen.items():
                    rows.append(run_fault(name, fault, stand, runs, chance))
        for name, (fault, settings) in LONG_FAULTS.items():
            if only in name and settings is not None:
                with standing(Path(folder) / fault.__name__, settings=settings) as stand:
                    rows.append(run_fault(name, fault, stand, runs, chance))
        if only in STORM:
            # A storm can hit one video more often than `max_attempts` allows: with so many attempts only a loss is one.
            with standing(Path(folder) / "storm", max_attempts=100) as stand:
                started = time.monotonic()
                losses = storm(stand, chance, STORM_VIDEOS, STORM_SECONDS)
                rows.append((STORM, 1, losses, time.monotonic() - started))
                print_row(*rows[-1])
    return int(any(losses for _, _, losses, _ in rows))


def run_fault(
    name: str, fault: Callable[[Stand, random.Random], Losses], stand: Stand, runs: int, chance: random.Random
) -> Row:
    started = time.monotonic()
    losses: Losses = []
    try:
        for _ in range(runs):
            losses += fault(stand, chance)
    except pytest.skip.Exception as reason:
        print(f"{name}: skipped, {reason}", flush=True)
    except AssertionError as error:
        losses.append(f"check failed: {error}")
    row = (form_of(name, stand), runs, losses, time.monotonic() - started)
    print_row(*row)
    return row


def print_row(name: str, runs: int, losses: list[str], seconds: float) -> None:
    print(f"| {name:<50} | {runs:>4} | {len(losses):>6} | {seconds:>7.1f} s |", flush=True)
    for loss in losses:
        print(f"    {loss}", flush=True)


if __name__ == "__main__":
    print(f"| {'fault':<50} | {'runs':>4} | {'losses':>6} | {'time':>9} |", flush=True)
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, *sys.argv[2:]))
