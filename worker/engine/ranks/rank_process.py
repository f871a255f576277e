"""A rank as a child process of its leader. Neither outlives the other."""

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from worker.engine.ranks.messages import LeaderMessage, Leave, RankMessage

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
# Its connections break a moment before a process that is killed has ended.
_END_SECONDS = 1.0


class RankProcess:
    """Sends messages to a rank and receives its answers. `on_lost(reason)` is called when the process has ended."""

    def __init__(self, name: str, on_lost: Callable[[str], object]) -> None:
        """Start the process. It ends with the thread that makes this call, which must be the main one."""
        self.name = name
        self._on_lost = on_lost
        self._is_closing = False
        ours, theirs = socket.socketpair()
        with theirs:
            # Without -P the current directory comes first on the module search path.
            command = [sys.executable, "-P", "-m", "worker.engine.ranks.rank", str(theirs.fileno())]
            # In its own group the rank does not receive the Ctrl-C of a terminal: its leader decides when it stops.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
            )
        self._connection: Connection[RankMessage, LeaderMessage] = Connection(ours.detach())
        threading.Thread(target=self._watch, name=f"watch {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: RankMessage) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            self._lose(f"no connection to it: {error}")

    def receive(self) -> LeaderMessage:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            self._lose(f"no connection to it: {error!r}")
            raise

    def begin_close(self) -> None:
        """Let the process leave its group. From now on it is not lost when it ends."""
        self._is_closing = True
        with suppress(OSError):
            self._connection.send(Leave())

    def close(self) -> None:
        """Stop the process: it exits when its connection is closed."""
        self._connection.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def describe_end(self, timeout_seconds: float) -> str | None:
        """How the process has ended. None if it does not end within this time."""
        try:
            status = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        how = f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
        return f"{self.name} was lost: {how}"

    def _watch(self) -> None:
        self._process.wait()
        self._lose("")

    def _lose(self, reason: str) -> None:
        if not self._is_closing:
            self._on_lost(self.describe_end(_END_SECONDS) or f"{self.name} was lost: {reason}")
