"""Clocks for a run of the real engine."""

from time import perf_counter, sleep, thread_time


class WallClock:
    """Wall-clock time. Other load counts, so the machine must be idle."""

    def __init__(self) -> None:
        self._started_at = perf_counter()

    def now(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._started_at

    def wait_until(self, now: float) -> None:
        """Sleep until the time `now`, if it is in the future."""
        sleep(max(0.0, now - self.now()))


class WorkClock:
    """Processor time of this thread. Waiting advances the clock without sleeping.

    For a machine with other load. All work must run in this thread.
    """

    def __init__(self) -> None:
        self._offset = -thread_time()

    def now(self) -> float:
        """Seconds of work and of waiting since the start."""
        return thread_time() + self._offset

    def wait_until(self, now: float) -> None:
        """Advance the clock to the time `now`, if it is in the future."""
        self._offset += max(0.0, now - self.now())


Clock = WallClock | WorkClock
