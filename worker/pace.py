"""What is measured of the requests of one group: how fast the device is with them, and how many it has memory for."""

from dataclasses import dataclass, field

from worker.memory import RowLimit
from worker.step_curve import StepCurve


@dataclass
class Pace:
    """`tokens` are those of one row."""

    tokens: int
    limit: RowLimit
    curve: StepCurve = field(default_factory=StepCurve)
    _last_rows: int = 0
    _seen: set[int] = field(default_factory=set)

    def observe(self, rows: int, seconds: float) -> None:
        """A pass of so many rows took so long. The first one of each size is left out: it sets up what others find."""
        if rows in self._seen:
            self.curve.observe(rows, seconds)
            self._last_rows = rows
        self._seen.add(rows)

    @property
    def cost_per_second(self) -> float | None:
        """Steps x rows x tokens that a second does in passes like the last one; None before any was measured."""
        return self._last_rows * self.tokens / self.curve.seconds(self._last_rows) if self._last_rows else None
