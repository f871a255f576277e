"""The processes of `framedit serve`: started together, restarted when they die, ended in order."""

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from cli.children import spawn, stop
from jobs.errors import FrameditError

logger = logging.getLogger(__name__)

# What a process ends with that would fail the same way if it were started again.
CANNOT_START = 2

_POLL_SECONDS = 0.1
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
# A process that has run this long was well: its next death is a new story.
_WELL_AFTER_SECONDS = 60.0


class ChildFailedError(FrameditError):
    """A process that is needed cannot run; it has said why on its own."""

    code = "child_failed"


@dataclass
class Program:
    """A child process to keep alive. `command` is called for each start, `on_death` after each end that was not asked
    for."""

    name: str
    command: Callable[[], Sequence[str]]
    env: dict[str, str]
    on_death: Callable[[], None] = lambda: None
    pass_fds: Sequence[int] = ()
    stop_timeout_seconds: float = 30.0
    deaths_before_taken_out: int | None = None
    """So many deaths in a row, none after a time that it ran well, and it is taken out: the others go on without it.
    None is a program without which nothing goes on, and which is started again for ever."""
    deaths: int = field(default=0, init=False)
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    backoff_seconds: float = _FIRST_BACKOFF_SECONDS

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = spawn(self.command(), env=self.env, pass_fds=self.pass_fds)


@dataclass
class Supervisor:
    """Runs programs until SIGINT, SIGTERM or SIGHUP, then stops them, the last one first."""

    programs: list[Program]
    alive: Callable[[], None] = lambda: None
    """Called again and again; raises when something else that is needed is gone."""
    _stop_signals: int = field(default=0, init=False)

    def run(self, on_started: Callable[[], bool]) -> None:
        """`on_started` is called until it returns True. Raises `ChildFailedError` for a program that cannot run."""
        with _handling(self._request_stop):
            try:
                for program in self.programs:
                    program.start()
                announced = False
                while not self._stop_signals:
                    announced = announced or on_started()
                    for program in list(self.programs):
                        self._watch(program)
                    self.alive()
                    time.sleep(_POLL_SECONDS)
                logger.info("stopping")
            finally:
                self._stop_all()

    def _request_stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stop_signals += 1

    def _watch(self, program: Program) -> None:
        if program.process is None:
            if time.monotonic() >= program.start_at and not self._stop_signals:
                program.start()
            return
        status = program.process.poll()
        if status is None:
            return
        program.process = None
        if time.monotonic() - program.started_at > _WELL_AFTER_SECONDS:
            program.backoff_seconds = _FIRST_BACKOFF_SECONDS
            program.deaths = 0
        program.deaths += 1
        if status == CANNOT_START or program.deaths == program.deaths_before_taken_out:
            program.on_death()
            self._take_out(program, status)
            return
        logger.warning(
            "the %s %s; starting it again in %.1f s", program.name, describe_exit(status), program.backoff_seconds
        )
        program.on_death()
        program.start_at = time.monotonic() + program.backoff_seconds
        program.backoff_seconds = min(2 * program.backoff_seconds, _LONGEST_BACKOFF_SECONDS)

    def _take_out(self, program: Program, status: int) -> None:
        """Go on without a program that cannot run; raises `ChildFailedError` when that is not to be."""
        if program.deaths_before_taken_out is None:
            raise ChildFailedError(f"the {program.name} cannot run (see above)")
        logger.error("the %s %s and is taken out: nothing starts it again", program.name, describe_exit(status))
        self.programs.remove(program)
        if not self.programs:
            raise ChildFailedError(f"the {program.name} was the last one, and cannot run (see above)")

    def _stop_all(self) -> None:
        """Ask all at once, wait for each; a second signal from the user kills instead."""
        running = [(program, program.process) for program in reversed(self.programs) if program.process is not None]
        for _, process in running:
            if process.poll() is None:
                process.terminate()
        for program, process in running:
            deadline = time.monotonic() + program.stop_timeout_seconds
            while process.poll() is None and time.monotonic() < deadline and self._stop_signals < 2:
                time.sleep(_POLL_SECONDS / 2)
            if process.poll() is None:
                logger.warning("the %s does not end by itself: killed", program.name)
            stop(process, timeout_seconds=0 if process.poll() is None else 1)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """The handler in place of the ones before for as long as the block lasts."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def describe_exit(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}"
