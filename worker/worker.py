"""A worker: the dispatcher, preparer, loop and finisher threads, and how they start and end."""

import threading
from types import FrameType

from worker.dispatch.dispatcher import Dispatcher
from worker.loop import Loop
from worker.messages import (
    CloseFinisher,
    ClosePreparer,
    DispatcherMessage,
    FinisherMessage,
    Inbox,
    LoopEnded,
    PreparerMessage,
    StopRequested,
)
from worker.output.finisher import Finisher
from worker.preparer import Preparer


class Worker:
    """The loop runs on the thread that calls `run`, the others on threads of their own."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        preparer: Preparer,
        loop: Loop,
        finisher: Finisher,
        dispatcher_inbox: Inbox[DispatcherMessage],
        preparer_inbox: Inbox[PreparerMessage],
        finisher_inbox: Inbox[FinisherMessage],
    ) -> None:
        self._dispatcher = dispatcher
        self._preparer = preparer
        self._loop = loop
        self._finisher = finisher
        self._dispatcher_inbox = dispatcher_inbox
        self._preparer_inbox = preparer_inbox
        self._finisher_inbox = finisher_inbox

    def warm_up(self, max_seconds: float) -> None:
        """Measure the models before the first job, for at most `max_seconds` each."""
        self._loop.warm_up(max_seconds)

    def run(self) -> None:
        """Run until asked to stop and no job is left, in burst mode until the queues are empty.

        An error of the engine ends the worker; its leases then expire as after a crash.
        """
        dispatcher = threading.Thread(target=self._dispatcher.run, name="dispatcher", daemon=True)
        preparer = threading.Thread(target=self._preparer.run, name="preparer", daemon=True)
        finisher = threading.Thread(target=self._finisher.run, name="finisher", daemon=True)
        for thread in (dispatcher, preparer, finisher):
            thread.start()
        try:
            self._loop.run()
        finally:
            self._dispatcher_inbox.post(LoopEnded())
            dispatcher.join()
            self._preparer_inbox.post(ClosePreparer())
            self._finisher_inbox.post(CloseFinisher())
            preparer.join()
            finisher.join()

    def request_stop(self, signal_number: int, frame: FrameType | None = None) -> None:
        """Drain at the first call, end at once at the second. It is a signal handler; any thread may call it."""
        self._dispatcher_inbox.post(StopRequested(signal_number))

    def sign_off(self) -> None:
        """Remove the worker from Redis. Call it after `run`."""
        self._dispatcher.sign_off()
