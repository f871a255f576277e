"""What a run of the real engine is timed with."""

from time import perf_counter, sleep, thread_time


class WallClock:
    """Seconds that go by. What else the machine does counts, so it has to be idle."""

    def __init__(self) -> None:
        self._started_at = perf_counter()

    def now(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._started_at

    def wait_until(self, now: float) -> None:
        """Sleep until then, if it is still to come."""
        sleep(max(0.0, now - self.now()))


class WorkClock:
    """Seconds that this thread is at work; waiting takes none, it is only counted.

    For a machine that is busy with something else. The work must be done in this thread alone.
    """

    def __init__(self) -> None:
        self._offset = -thread_time()

    def now(self) -> float:
        """Seconds of work since the start, and of those that were waited."""
        return thread_time() + self._offset

    def wait_until(self, now: float) -> None:
        """Let it be then, if it is still to come."""
        self._offset += max(0.0, now - self.now())


Clock = WallClock | WorkClock
