"""Processes that are forked from one that has imported torch and the commands: each starts seconds earlier.

The process is a real one, with its own environment, output and signals. Only the start of Python is left out.
"""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import TimeoutExpired

REPOSITORY = Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "cli.main", "cli.local.convert", "cli.local.generate", "cli.processes.api_server", "worker.main"]
)


class Forked:
    """A program, with the methods of a `subprocess.Popen`."""

    def __init__(
        self,
        program: Callable[[], None],
        arguments: Sequence[str | Path],
        env: Mapping[str, str],
        stdout: Path,
        stderr: Path | None = None,
        folder: Path = REPOSITORY,
    ) -> None:
        """Without `stderr`, all output is appended to `stdout`."""
        outputs = (stdout, stderr or stdout)
        for path in outputs:
            path.touch()
        self._process = _CONTEXT.Process(
            target=_run, args=(program, list(map(str, arguments)), dict(env), outputs, folder), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutExpired(self._process.name, timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    program: Callable[[], None], arguments: list[str], env: dict[str, str], outputs: tuple[Path, Path], folder: Path
) -> None:
    os.setpgid(0, 0)
    for descriptor, path in zip((1, 2), outputs, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["framedit", *arguments]
    try:
        program()
    finally:
        atexit._run_exitfuncs()
