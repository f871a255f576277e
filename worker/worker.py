"""A worker: the dispatcher, loop, loader, preparer and finisher threads, and how they start and end."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from worker.dispatch.dispatcher import Dispatcher
from worker.loop import Loop
from worker.messages import DispatcherMessage, Inbox, LoopEnded, StopRequested


@dataclass(frozen=True)
class LoopHelper:
    """A thread that works for the loop. `close` ends it after the work at hand."""

    name: str
    run: Callable[[], None]
    close: Callable[[], None]


class Worker:
    """The loop runs on the thread that calls `run`, the others on threads of their own."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        loop: Loop,
        helpers: Sequence[LoopHelper],
        dispatcher_inbox: Inbox[DispatcherMessage],
    ) -> None:
        self._dispatcher = dispatcher
        self._loop = loop
        self._helpers = helpers
        self._dispatcher_inbox = dispatcher_inbox

    def warm_up(self, max_seconds: float) -> None:
        """Measure the models before the first job, for at most `max_seconds` each."""
        self._loop.warm_up(max_seconds)

    def run(self) -> None:
        """Run until asked to stop and no job is left, in burst mode until the queues are empty.

        An error of the engine ends the worker; its leases then expire as after a crash.
        """
        dispatcher = threading.Thread(target=self._dispatcher.run, name="dispatcher", daemon=True)
        threads = [threading.Thread(target=helper.run, name=helper.name, daemon=True) for helper in self._helpers]
        for thread in (dispatcher, *threads):
            thread.start()
        try:
            self._loop.run()
        finally:
            self._dispatcher_inbox.post(LoopEnded())
            dispatcher.join()
            for helper in self._helpers:
                helper.close()
            for thread in threads:
                thread.join()

    def request_stop(self, signal_number: int, frame: FrameType | None = None) -> None:
        """Drain at the first call, end at once at the second. It is a signal handler; any thread may call it."""
        self._dispatcher_inbox.post(StopRequested(signal_number))

    def sign_off(self) -> None:
        """Remove the worker from Redis. Call it after `run`."""
        self._dispatcher.sign_off()
