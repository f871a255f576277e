"""The state of a running load, redrawn in place on a terminal."""

import sys
import time
from typing import IO

from cli.bench.load import Tally
from cli.bench.summary import STAGES, statistics

_PAUSE_SECONDS = 0.5


class LiveTable:
    """Draws a tally at most twice a second. Draws nothing where the output is not a terminal."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stderr
        self._num_lines = 0
        self._drawn_at = float("-inf")

    def show(self, tally: Tally) -> None:
        if not self._out.isatty() or time.monotonic() - self._drawn_at < _PAUSE_SECONDS:
            return
        self.clear()
        lines = table(tally)
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._num_lines = len(lines)
        self._drawn_at = time.monotonic()

    def clear(self) -> None:
        """Remove the table from the terminal."""
        if self._num_lines:
            self._out.write(f"\x1b[{self._num_lines}F\x1b[J")
            self._num_lines = 0


def table(tally: Tally) -> list[str]:
    """The lines of the table: counts, then the percentiles so far."""
    outcomes = {
        name: sum(sample.outcome == name for sample in tally.samples) for name in ("completed", "failed", "refused")
    }
    counts = {"sent": tally.sent, "queued": len(tally.waiting), "running": len(tally.running), **outcomes}
    lines = [f"{tally.seconds:6.1f} s  " + "  ".join(f"{name} {count}" for name, count in counts.items())]
    completed = [sample for sample in tally.samples if sample.outcome == "completed"]
    for stage, name in STAGES.items():
        found = statistics([value for sample in completed if (value := getattr(sample, stage)) is not None])
        if found:
            lines.append(f"{name:>14} s  " + "  ".join(f"{key} {value:7.3f}" for key, value in found.items()))
    return lines
