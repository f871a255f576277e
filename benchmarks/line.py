"""The line before the engine: requests come at their times, and are admitted between two passes."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.traffic import Arrival


@dataclass(frozen=True)
class Admitted:
    """A request that has a seat; times are seconds since the start of the run.

    Attributes:
        seat_was_free: when the engine first looked at it.
        pass_seconds: of the pass that was under way when it came, 0 if there was none.
    """

    arrival: Arrival
    at_seconds: float
    seat_was_free: bool
    pass_seconds: float

    @property
    def waited_seconds(self) -> float:
        """From its arrival until it had a seat."""
        return self.at_seconds - self.arrival.at_seconds


@dataclass(frozen=True)
class Served:
    """A request that is done."""

    admitted: Admitted
    at_seconds: float

    @property
    def latency_seconds(self) -> float:
        """From its arrival to its last step."""
        return self.at_seconds - self.admitted.arrival.at_seconds


class Line:
    """First come, first admitted."""

    def __init__(self, traffic: Sequence[Arrival]) -> None:
        self._coming = deque(traffic)
        self._waiting: deque[tuple[Arrival, bool, float]] = deque()

    def __len__(self) -> int:
        """Requests that are not admitted yet."""
        return len(self._coming) + len(self._waiting)

    @property
    def next_at(self) -> float:
        """When the next request comes, in seconds since the start."""
        return self._coming[0].at_seconds

    def admit(self, now: float, free_seats: int, pass_started_at: float) -> Iterator[Admitted]:
        """Those who get one of the free seats now that the pass which began at `pass_started_at` has ended."""
        while self._coming and self._coming[0].at_seconds <= now:
            arrival = self._coming.popleft()
            pass_seconds = now - pass_started_at if arrival.at_seconds >= pass_started_at else 0.0
            self._waiting.append((arrival, len(self._waiting) < free_seats, pass_seconds))
        for _ in range(min(free_seats, len(self._waiting))):
            arrival, seat_was_free, pass_seconds = self._waiting.popleft()
            yield Admitted(arrival, now, seat_was_free, pass_seconds)
