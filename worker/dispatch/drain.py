"""The drain of a worker: it claims no more jobs, finishes what it can in time, and hands back the rest."""

from collections.abc import Callable

# After the drain time, for the last changes in Redis.
_FINAL_SECONDS = 5.0


class Drain:
    """Deadlines of a drain. Nothing is over before `begin`."""

    def __init__(self, drain_seconds: float, clock: Callable[[], float]) -> None:
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._hand_back_at: float | None = None
        self._give_up_at: float | None = None

    @property
    def has_begun(self) -> bool:
        return self._hand_back_at is not None

    def begin(self) -> None:
        self._hand_back_at = self._clock() + self._drain_seconds

    def skip(self) -> None:
        """Hand back at once."""
        self._hand_back_at = float("-inf")

    @property
    def is_handing_back(self) -> bool:
        """Whether unfinished jobs go back to the queue now."""
        return self._hand_back_at is not None and self._clock() >= self._hand_back_at

    @property
    def is_over(self) -> bool:
        """Whether jobs that could not be handed back are given up; their leases expire."""
        if not self.is_handing_back:
            return False
        if self._give_up_at is None:
            self._give_up_at = self._clock() + _FINAL_SECONDS
        return self._clock() >= self._give_up_at
