"""How many seconds a forward pass takes by the number of its rows, t(rows): measured, and refined with every pass.

On a CPU or a full GPU t grows in proportion to the rows, and a larger batch only makes everybody wait; on a GPU with
room it hardly grows. Only measuring tells.
"""

from collections import deque
from statistics import median

# Of a row count, the median of its last times counts: outliers do nothing, and a lasting change is soon learnt.
WINDOW = 9
# With fewer times than this, a row count is not looked at: one slow pass must not keep a good batch from being tried.
TRUSTED_AFTER = 3
# After so many observations without a row count, its own times no longer tell how fast the machine is now.
STALE_AFTER = 32
UNMEASURED_SECONDS = 1.0


class StepCurve:
    """t(rows) of one batch key on one device.

    Feed it at warm-up with a few passes at 1, 2, 4 ... rows (a first pass at new shapes is slow: leave it out), then
    with every pass.
    """

    def __init__(self) -> None:
        self._recent: dict[int, deque[float]] = {}
        self._last_seen: dict[int, int] = {}
        self._num_observed = 0
        self._knots: list[tuple[int, float]] = []

    def observe(self, rows: int, seconds: float) -> None:
        """A pass of `rows` rows took `seconds`. Raises ValueError for what no pass can have had."""
        if rows < 1 or not 0 < seconds < float("inf"):
            raise ValueError(f"got a pass of {rows} rows in {seconds} s: a pass has at least 1 row and takes some time")
        times = self._recent.setdefault(rows, deque(maxlen=WINDOW))
        before = median(times) if times else None
        times.append(seconds)
        self._num_observed += 1
        self._last_seen[rows] = self._num_observed
        if before is not None:
            self._carry_along(rows, median(times) / before)
        self._knots = _rising([(count, median(self._recent[count])) for count in self._trusted()])

    def seconds(self, rows: int) -> float:
        """Seconds of a pass of `rows` rows, never less than one of fewer rows.

        Straight lines between the measured row counts. Above them the last line goes on; with one measured row count it
        is flat, so that larger batches get tried and measured. Below them in proportion to the rows. 1 s before any
        measurement.
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
        """The fewest rows, at most `limit`, from which more rows would raise the rows per second by `margin` at most.

        0.1 means: a larger batch must bring more than 10 % of throughput.
        """
        throughputs = [rows / self.seconds(rows) for rows in range(1, limit + 1)]
        enough = max(throughputs) / (1 + margin)
        return next(rows for rows, throughput in enumerate(throughputs, start=1) if throughput >= enough)

    def _trusted(self) -> list[int]:
        """Row counts that were observed often enough; all of them as long as none was."""
        counts = sorted(self._recent)
        return [count for count in counts if len(self._recent[count]) >= TRUSTED_AFTER] or counts

    def _carry_along(self, rows: int, factor: float) -> None:
        """Let row counts that were not run lately follow the nearest one that is.

        When something else takes half of the machine, all of the curve rises, not only the part that is in use;
        otherwise the rest would look fast then, and slow for ever after.
        """
        stale = [count for count, seen in self._last_seen.items() if self._num_observed - seen > STALE_AFTER]
        fresh = [count for count in self._recent if count not in stale]
        for count in stale:
            if min(fresh, key=lambda other: abs(other - count)) == rows:
                self._recent[count] = deque((time * factor for time in self._recent[count]), maxlen=WINDOW)


def _rising(knots: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The nearest curve (least squares) that never falls: neighbours that do are averaged (pool adjacent violators)."""
    pools: list[list[float]] = []
    for _, seconds in knots:
        pools.append([seconds])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    levels = [_mean(pool) for pool in pools for _ in pool]
    return [(rows, level) for (rows, _), level in zip(knots, levels, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
