"""Processes of a stand: each is started again when it dies."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.forked import REPOSITORY, Forked


@dataclass
class Child:
    """A process that is restarted when it dies, until `stop`."""

    begin: Callable[[], subprocess.Popen[bytes] | Forked]
    log: Path
    is_restarted: bool = True
    deaths: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        self.process = self.begin()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with self._lock:
            self.process.send_signal(number)

    def restart_if_dead(self) -> None:
        with self._lock:
            if self.is_restarted and self.process.poll() is not None:
                self.deaths += 1
                self.start()

    def stop(self) -> None:
        with self._lock:
            self.is_restarted = False
            self.process.kill()
            self.process.wait()


def start(
    program: Callable[[], None], arguments: Sequence[str], env: Mapping[str, str], log: Path, is_forked: bool
) -> Child:
    """Start a program, without the seconds that Python takes to import PyTorch if it `is_forked`."""
    if is_forked:
        return Child(lambda: Forked(program, arguments, env, log), log)
    command = [sys.executable, "-m", program.__module__, *arguments]
    return Child(lambda: spawn(command, env, log), log)


def spawn(
    command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path = REPOSITORY
) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output, process_group=0)
