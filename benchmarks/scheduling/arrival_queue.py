"""The queue in front of the engine: requests arrive at their times and are admitted between two passes."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scheduling.traffic import Arrival


@dataclass(frozen=True)
class Admitted:
    """A request that has a slot. Times are seconds since the start of the run.

    Attributes:
        slot_was_free: whether a slot was free at the first admission after its arrival.
        pass_seconds: duration of the pass under way at its arrival, 0 if there was none.
    """

    arrival: Arrival
    at_seconds: float
    slot_was_free: bool
    pass_seconds: float

    @property
    def waited_seconds(self) -> float:
        """Seconds from arrival to admission."""
        return self.at_seconds - self.arrival.at_seconds


@dataclass(frozen=True)
class Served:
    """A completed request."""

    admitted: Admitted
    at_seconds: float

    @property
    def latency_seconds(self) -> float:
        """Seconds from arrival to the last step."""
        return self.at_seconds - self.admitted.arrival.at_seconds


class ArrivalQueue:
    """Requests that are not admitted yet, in the order of arrival."""

    def __init__(self, traffic: Sequence[Arrival]) -> None:
        self._future = deque(traffic)
        self._waiting: deque[tuple[Arrival, bool, float]] = deque()

    def __len__(self) -> int:
        """Number of requests that are not admitted yet."""
        return len(self._future) + len(self._waiting)

    @property
    def next_at(self) -> float:
        """Time of the next arrival, in seconds since the start."""
        return self._future[0].at_seconds

    def admit(self, now: float, free_slots: int, pass_started_at: float) -> Iterator[Admitted]:
        """Fill the free slots at the end of the pass that began at `pass_started_at`."""
        while self._future and self._future[0].at_seconds <= now:
            arrival = self._future.popleft()
            pass_seconds = now - pass_started_at if arrival.at_seconds >= pass_started_at else 0.0
            self._waiting.append((arrival, len(self._waiting) < free_slots, pass_seconds))
        for _ in range(min(free_slots, len(self._waiting))):
            arrival, slot_was_free, pass_seconds = self._waiting.popleft()
            yield Admitted(arrival, now, slot_was_free, pass_seconds)
