"""A load: requests that are sent as they are due, each followed by its own thread."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread

from cli.bench.arrivals import Arrivals
from cli.bench.request import Accepted, Ended, Fields, NotDeleted, Report, Started, TimedRequest
from cli.bench.sample import Sample
from cli.bench.workload import Workload
from cli.client.api_client import Client
from jobs.errors import FrameditError

_REDRAW_SECONDS = 0.5
_ABORT_SECONDS = 10.0


@dataclass(frozen=True)
class Interrupted:
    """Ctrl-C was pressed."""


Message = Report | Interrupted


@dataclass(frozen=True)
class Limits:
    """No request is sent after `num_videos` of them, or after `seconds`."""

    num_videos: int | None = None
    seconds: float | None = None

    def allow(self, sent: int, now: float) -> bool:
        return (self.num_videos is None or sent < self.num_videos) and (self.seconds is None or now < self.seconds)


@dataclass
class Tally:
    """The state of a load, as far as its requests have reported."""

    seconds: float = 0.0
    sent: int = 0
    waiting: dict[int, str] = field(default_factory=dict)  # video ids by number of the request
    running: dict[int, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    not_deleted: list[str] = field(default_factory=list)

    @property
    def active(self) -> int:
        return self.sent - len(self.samples)

    @property
    def unanswered(self) -> int:
        """How many requests the server has neither accepted nor refused yet."""
        return self.active - len(self.waiting) - len(self.running)

    def add(self, message: Report) -> None:
        match message:
            case Accepted(number, video_id):
                self.waiting[number] = video_id
            case Started(number):
                self.running[number] = self.waiting.pop(number)
            case Ended(number, sample):
                self.waiting.pop(number, None)
                self.running.pop(number, None)
                self.samples.append(sample)
            case NotDeleted(reason):
                self.not_deleted.append(reason)


class Load:
    """Runs one load. The main thread alone owns the tally; the threads of the requests report to its inbox."""

    def __init__(
        self, client: Client, workload: Workload, arrivals: Arrivals, limits: Limits, delete: bool = True
    ) -> None:
        self._client = client
        self._workload = workload
        self._bodies: Iterator[Fields] = workload.bodies()
        self._arrivals = arrivals
        self._limits = limits
        self._delete = delete
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._threads: list[Thread] = []
        self._start = 0.0
        self.tally = Tally()

    def run(self, show: Callable[[Tally], None] = lambda tally: None) -> list[Sample]:
        """Send the requests and wait for the end of each. `show` is called at least twice a second.

        A `KeyboardInterrupt` deletes the videos that have not ended.
        """
        self._start = time.monotonic()
        with _interrupts_to(self._inbox):
            try:
                while self._send_due() or self.tally.active:
                    self._receive()
                    show(self.tally)
            except KeyboardInterrupt:
                self._abort()
                raise
        for thread in self._threads:
            thread.join()
        while not self._inbox.empty():
            self._take(self._inbox.get())
        return self.tally.samples

    def _send_due(self) -> bool:
        """Send the requests that are due. Returns whether more will follow."""
        while self._limits.allow(self.tally.sent, now := time.monotonic() - self._start):
            due = self._arrivals.next_at(now, self.tally.active)
            if due is None or due > now:
                return True
            self._send(due)
        return False

    def _send(self, due: float) -> None:
        body = next(self._bodies)
        sample = Sample(self._workload.group(body), sent_at=due, outcome="failed")
        number = self.tally.sent
        request = TimedRequest(
            self._client, number, body, sample, self._start + due, self._inbox.put, delete=self._delete
        )
        thread = Thread(target=request.run, name=f"request-{number}", daemon=True)
        self._threads.append(thread)
        thread.start()
        self.tally.sent += 1
        self._arrivals.sent()

    def _receive(self) -> None:
        """Wait for messages until the next request is due, or the tally is to be shown again."""
        now = time.monotonic() - self._start
        due = self._arrivals.next_at(now, self.tally.active)
        wait = _REDRAW_SECONDS
        if due is not None and self._limits.allow(self.tally.sent, now):
            wait = min(wait, max(0.0, due - now))
        try:
            self._take(self._inbox.get(timeout=wait))
            while True:
                self._take(self._inbox.get_nowait())
        except Empty:
            pass
        self.tally.seconds = time.monotonic() - self._start

    def _take(self, message: Message) -> None:
        if isinstance(message, Interrupted):
            raise KeyboardInterrupt
        self.tally.add(message)

    def _abort(self) -> None:
        """Delete the videos that have not ended, also those whose creation has not been answered yet."""
        deadline = time.monotonic() + _ABORT_SECONDS
        while self.tally.unanswered and (left := deadline - time.monotonic()) > 0:
            with suppress(Empty):
                self._take(self._inbox.get(timeout=left))
        for video_id in (*self.tally.waiting.values(), *self.tally.running.values()):
            try:
                self._client.delete(video_id)
            except FrameditError as error:
                self.tally.not_deleted.append(error.message)


@contextmanager
def _interrupts_to(inbox: SimpleQueue[Message]) -> Iterator[None]:
    """Report the first Ctrl-C as a message: as an exception, it could lose the message that is being received."""
    if (before := signal.getsignal(signal.SIGINT)) is not signal.default_int_handler:
        yield
        return

    def report(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        inbox.put(Interrupted())

    signal.signal(signal.SIGINT, report)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
