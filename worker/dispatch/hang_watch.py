"""The hang watch: whether a step, a preparation or a model load exceeds its timeout."""

from collections.abc import Callable

from worker.messages import LoopReport, ModelLoading, PreparationChanged


class HangWatch:
    """The last heartbeat of the loop, and the starts of the preparation and of the load at work."""

    def __init__(self, timeout_seconds: float, clock: Callable[[], float]) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._loop_at = clock()
        self._preparing_since: float | None = None
        self._loading_since: float | None = None

    def start(self) -> None:
        """Count from now: the loop has just started."""
        self._loop_at = self._clock()

    def update(self, message: LoopReport | PreparationChanged | ModelLoading) -> None:
        match message:
            case LoopReport(at):
                self._loop_at = at
            case PreparationChanged(request_id, at):
                self._preparing_since = None if request_id is None else at
            case ModelLoading(model, at):
                self._loading_since = None if model is None else at

    def is_hanging(self, for_seconds: float = 0.0) -> bool:
        """Whether one of them has exceeded its timeout, by `for_seconds`."""
        since = (self._loop_at, self._preparing_since, self._loading_since)
        first = min(at for at in since if at is not None)
        return self._clock() - first > self._timeout_seconds + for_seconds
