"""When the requests of a load are sent."""

import random
from typing import Protocol


class Arrivals(Protocol):
    """Decides when the next request is due, in seconds from the start of the load."""

    def next_at(self, now: float, active: int) -> float | None:
        """When the next request is due; None while that depends on the end of another one."""

    def sent(self) -> None:
        """The request that was due has been sent."""

    def describe(self) -> str: ...


class Poisson:
    """`rate` requests a second on average, at random times, however many are active."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate = rate
        self._rng = random.Random(seed)
        self._next_at = 0.0

    def next_at(self, now: float, active: int) -> float | None:
        return self._next_at

    def sent(self) -> None:
        self._next_at += self._rng.expovariate(self._rate)

    def describe(self) -> str:
        return f"{self._rate:g} videos/s (Poisson)"


class Concurrent:
    """Always `concurrency` active requests: each is sent when another one has ended."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency

    def next_at(self, now: float, active: int) -> float | None:
        return now if active < self._concurrency else None

    def sent(self) -> None:
        pass

    def describe(self) -> str:
        return f"{self._concurrency} at a time"
