"""Child processes that cannot outlive the process that started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    output: IO[bytes] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, with `death_signal` sent to it when this process dies.

    The group of its own keeps a terminal's Ctrl-C from reaching the child: who started it decides when it stops. The
    signal at the parent's death is a service of Linux; elsewhere only a parent that stops in order stops its children.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        process_group=0,
        preexec_fn=_die_with_parent(death_signal),
    )


def stop(child: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    """Ask `child` to end (SIGTERM), kill it when it has not after `timeout_seconds`; its exit status."""
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # looked up before the fork: between fork and exec as little as possible may run
    number = int(death_signal)

    def request_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)

    return request_signal
