"""A supervisor of child processes: it starts them together, restarts them when they die, and stops them in order."""

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from cli.processes.child_process import spawn, stop
from jobs.errors import FrameditError

logger = logging.getLogger(__name__)

# The exit status of a process that would fail in the same way after a restart.
CANNOT_START = 2

_POLL_SECONDS = 0.1
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
# A process that ran this long was healthy: its next death does not count as another one in a row.
_HEALTHY_AFTER_SECONDS = 60.0


class ChildFailedError(FrameditError):
    """A required process cannot run; it has logged the reason itself."""

    code = "child_failed"


@dataclass
class Program:
    """A child process to keep alive. `command` is called for each start, `on_death` after each unrequested exit."""

    name: str
    command: Callable[[], Sequence[str]]
    env: dict[str, str]
    on_death: Callable[[], None] = lambda: None
    pass_fds: Sequence[int] = ()
    stop_timeout_seconds: float = 30.0
    deaths_before_removal: int | None = None
    """Number of deaths in a row after which the program is removed and the others go on without it. None: the program
    is required, and is restarted without limit."""
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
    """Runs programs until SIGINT, SIGTERM or SIGHUP, then stops them in reverse order."""

    programs: list[Program]
    alive: Callable[[], None] = lambda: None
    """Called periodically; raises if another required part has failed."""
    _stop_signals: int = field(default=0, init=False)

    def run(self, on_started: Callable[[], bool]) -> None:
        """Run, and call `on_started` until it returns True. Raises `ChildFailedError` for a program that cannot run."""
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
        if time.monotonic() - program.started_at > _HEALTHY_AFTER_SECONDS:
            program.backoff_seconds = _FIRST_BACKOFF_SECONDS
            program.deaths = 0
        program.deaths += 1
        if status == CANNOT_START or program.deaths == program.deaths_before_removal:
            program.on_death()
            self._remove(program, status)
            return
        logger.warning("%s %s, restarting in %.1f s", program.name, describe_exit(status), program.backoff_seconds)
        program.on_death()
        program.start_at = time.monotonic() + program.backoff_seconds
        program.backoff_seconds = min(2 * program.backoff_seconds, _LONGEST_BACKOFF_SECONDS)

    def _remove(self, program: Program, status: int) -> None:
        """Go on without a program that cannot run. Raises `ChildFailedError` if it is required or the last one."""
        if program.deaths_before_removal is None:
            raise ChildFailedError(f"the {program.name} cannot run (see above)")
        logger.error("%s %s, removed and not restarted", program.name, describe_exit(status))
        self.programs.remove(program)
        if not self.programs:
            raise ChildFailedError(f"the {program.name} cannot run (see above), and no other program is left")

    def _stop_all(self) -> None:
        """Send SIGTERM to all, wait for each; a second signal from the user kills them."""
        running = [(program, program.process) for program in reversed(self.programs) if program.process is not None]
        for _, process in running:
            if process.poll() is None:
                process.terminate()
        for program, process in running:
            deadline = time.monotonic() + program.stop_timeout_seconds
            while process.poll() is None and time.monotonic() < deadline and self._stop_signals < 2:
                time.sleep(_POLL_SECONDS / 2)
            if process.poll() is None:
                logger.warning("%s did not stop in time, killed", program.name)
            stop(process, timeout_seconds=0 if process.poll() is None else 1)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install the handler for the duration of the block."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def describe_exit(status: int) -> str:
    """Describe an exit status: a status, or the signal that killed the process."""
    if status >= 0:
        return f"exited with status {status}"
    return f"was killed by {signal.Signals(-status).name}"
