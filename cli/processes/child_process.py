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
    """Start `command` in its own process group; the kernel sends `death_signal` to it when this process dies.

    The kernel also sends it when the thread that makes this call ends, so make it from the main one.

    In its own group the child does not receive the Ctrl-C of a terminal: the parent decides when it stops. The death
    signal exists on Linux only; elsewhere a killed parent leaves its children running.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        process_group=0,
        preexec_fn=die_with_parent(death_signal),
    )


def stop(child: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    """Send SIGTERM to `child`, and SIGKILL after `timeout_seconds`. Return its exit status."""
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a forked child calls to be sent `death_signal` when its parent dies. None where there is no such signal."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: little may run between fork and exec
    number = int(death_signal)

    def request_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)

    return request_signal
