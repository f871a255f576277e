"""The long form: every fault many times at random moments, with the lease that people have, and a storm of all.

`python -m tests.faults [runs of each] [name of one]` prints a table; the exit status is 1 when anything was lost.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.scenarios import FAULTS, form_of, storm
from tests.faults.stand import standing

STORM_VIDEOS = 200
STORM_SECONDS = 120.0
STORM = f"{STORM_VIDEOS} videos, {STORM_SECONDS:.0f} s of random kills"


def main(runs: int, only: str = "") -> int:
    rows = []
    chance = random.Random()
    with tempfile.TemporaryDirectory(prefix="framedit-faults-") as folder:
        chosen = {name: fault for name, fault in FAULTS.items() if only in name}
        if chosen:
            with standing(Path(folder) / "each") as stand:
                for name, fault in chosen.items():
                    started = time.monotonic()
                    losses = [loss for _ in range(runs) for loss in fault(stand, chance)]
                    rows.append((form_of(name, stand), runs, losses, time.monotonic() - started))
                    print_row(*rows[-1])
        if only in STORM:
            # Deaths at random are nobody's fault, and a storm of them may hit one video more often than a poison may
            # kill: so many attempts that only a loss is one.
            with standing(Path(folder) / "storm", max_attempts=100) as stand:
                started = time.monotonic()
                losses = storm(stand, chance, STORM_VIDEOS, STORM_SECONDS)
                rows.append((STORM, 1, losses, time.monotonic() - started))
                print_row(*rows[-1])
    return int(any(losses for _, _, losses, _ in rows))


def print_row(name: str, runs: int, losses: list[str], seconds: float) -> None:
    print(f"| {name:<50} | {runs:>4} | {len(losses):>6} | {seconds:>7.1f} s |", flush=True)
    for loss in losses:
        print(f"    {loss}", flush=True)


if __name__ == "__main__":
    print(f"| {'fault':<50} | {'runs':>4} | {'losses':>6} | {'time':>9} |", flush=True)
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, *sys.argv[2:]))
