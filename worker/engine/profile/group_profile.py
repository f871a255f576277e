"""Measurements of one group of requests: the latency of its passes, and its row limit."""

from dataclasses import dataclass, field

from worker.engine.profile.latency_model import LatencyModel
from worker.engine.profile.memory_limit import RowLimit


@dataclass
class GroupProfile:
    """Measurements that the scheduler and the executor share.

    `exact_rows`: numbers of rows with which a pass rounds as a pass of one row (`exact_rows.py`). Empty
    unless measured.
    """

    tokens_per_row: int
    row_limit: RowLimit
    latency: LatencyModel = field(default_factory=LatencyModel)
    exact_rows: frozenset[int] = frozenset()
    _last_rows: int = 0
    _seen_rows: set[int] = field(default_factory=set)

    def observe(self, rows: int, seconds: float) -> None:
        """Add the duration of a pass. The first pass of each size is left out, because it includes set-up."""
        if rows in self._seen_rows:
            self.latency.observe(rows, seconds)
            self._last_rows = rows
        self._seen_rows.add(rows)

    @property
    def cost_per_second(self) -> float | None:
        """Steps x rows x tokens per second, in passes like the last one; None before the first measurement."""
        rows = self._last_rows
        return rows * self.tokens_per_row / self.latency.seconds(rows) if rows else None
