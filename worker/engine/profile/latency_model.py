"""The latency model: seconds of a forward pass as a function t(rows), measured and updated with every pass.

On a CPU or a busy GPU, t grows in proportion to the rows, and a larger batch only delays every request. On a GPU with
free capacity it hardly grows. Only measurements show which is the case.
"""

from collections import deque
from statistics import median

# The median of this many last durations of a row count: it ignores outliers and follows lasting changes.
WINDOW = 9
# Row counts with fewer durations are ignored, so that one slow pass does not rule out a good batch size.
TRUSTED_AFTER = 3
# After this many passes without a row count, its own durations no longer describe the machine.
STALE_AFTER = 32
UNMEASURED_SECONDS = 1.0


class LatencyModel:
    """t(rows) of one batch key on one device.

    Feed it at warm-up with a few passes of 1, 2, 4 ... rows, then with every pass. Leave out the first pass of a new
    shape, because it is slow.
    """

    def __init__(self) -> None:
        self._recent: dict[int, deque[float]] = {}
        self._last_seen: dict[int, int] = {}
        self._num_observed = 0
        self._knots: list[tuple[int, float]] = []

    def observe(self, rows: int, seconds: float) -> None:
        """Add the duration of a pass. Raises ValueError for values that no pass can have."""
        if rows < 1 or not 0 < seconds < float("inf"):
            raise ValueError(f"got a pass of {rows} rows in {seconds} s: rows are at least 1, and seconds above 0")
        durations = self._recent.setdefault(rows, deque(maxlen=WINDOW))
        before = median(durations) if durations else None
        durations.append(seconds)
        self._num_observed += 1
        self._last_seen[rows] = self._num_observed
        if before is not None:
            self._scale_stale(rows, median(durations) / before)
        self._knots = _monotone([(count, median(self._recent[count])) for count in self._trusted()])

    def seconds(self, rows: int) -> float:
        """Predict the seconds of a pass. More rows never give fewer seconds.

        Linear between measured row counts; proportional to the rows below them; the last line is extended above them.
        With a single measured row count the prediction above it is constant, so that larger batches are tried and
        measured. 1 s before any measurement.
        """
        knots = self._knots
        if not knots:
            return UNMEASURED_SECONDS
        if rows <= knots[0][0]:
            return knots[0][1] * rows / knots[0][0]
        if len(knots) == 1:
            return knots[0][1]
        above = next((index for index, (count, _) in enumerate(knots) if rows <= count), len(knots) - 1)
        (low, low_seconds), (high, high_seconds) = knots[above - 1 : above + 1]
        return low_seconds + (high_seconds - low_seconds) * (rows - low) / (high - low)

    def best_rows(self, limit: int, margin: float) -> int:
        """The smallest batch whose throughput is within `margin` of the best, among 1 to `limit` rows.

        With a margin of 0.1, a larger batch must raise the throughput by more than 10 %.
        """
        throughputs = [rows / self.seconds(rows) for rows in range(1, limit + 1)]
        enough = max(throughputs) / (1 + margin)
        return next(rows for rows, throughput in enumerate(throughputs, start=1) if throughput >= enough)

    def _trusted(self) -> list[int]:
        """Row counts with enough durations; all row counts while there is none."""
        counts = sorted(self._recent)
        return [count for count in counts if len(self._recent[count]) >= TRUSTED_AFTER] or counts

    def _scale_stale(self, rows: int, factor: float) -> None:
        """Scale stale row counts with the nearest measured one.

        When another process takes half of the machine, all row counts slow down, not only those in use. Unscaled, the
        others would look fast now, and slow for ever after.
        """
        stale = [count for count, seen in self._last_seen.items() if self._num_observed - seen > STALE_AFTER]
        fresh = [count for count in self._recent if count not in stale]
        for count in stale:
            if min(fresh, key=lambda other: abs(other - count)) == rows:
                self._recent[count] = deque((time * factor for time in self._recent[count]), maxlen=WINDOW)


def _monotone(knots: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Isotonic regression by pooling adjacent violators: the nearest curve (least squares) that never falls."""
    pools: list[list[float]] = []
    for _, seconds in knots:
        pools.append([seconds])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    levels = [_mean(pool) for pool in pools for _ in pool]
    return [(rows, level) for (rows, _), level in zip(knots, levels, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
