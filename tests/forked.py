"""Processes that are forked from one that has imported torch and the commands: each starts seconds earlier.

The process is a real one, with its own environment, output and signals. Only the start of Python is left out.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import IO

import cli.processes.supervisor
from cli.main import main
from cli.processes.child_process import die_with_parent
from cli.processes.worker_process import FRAMEDIT

REPOSITORY = Path(__file__).parents[1]
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(
    ["pytest", "cli.main", "cli.local.convert", "cli.local.generate", "cli.processes.api_server", "worker.main"]
)
_FORK = multiprocessing.get_context("fork")


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
        # A daemon ends with the tests, and may have no children.
        is_daemon = program is not supervise
        started = (program, list(map(str, arguments)), dict(env), outputs, folder)
        self._start(_FORKSERVER.Process(target=_run, args=started, daemon=is_daemon))

    def _start(self, process: BaseProcess) -> None:
        process.start()
        assert process.pid is not None
        self._process = process
        self.pid = process.pid

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


def run(
    program: Callable[[], None],
    arguments: Sequence[str | Path],
    env: Mapping[str, str],
    folder: Path = REPOSITORY,
    timeout_seconds: float = 120.0,
) -> CompletedProcess[str]:
    """Run the program to its end."""
    with tempfile.TemporaryDirectory() as outputs:
        stdout, stderr = Path(outputs, "stdout"), Path(outputs, "stderr")
        process = Forked(program, arguments, env, stdout, stderr, folder)
        try:
            status = process.wait(timeout_seconds)
        finally:
            process.kill()
        return CompletedProcess(arguments, status, stdout.read_text(), stderr.read_text())


def framedit(*arguments: str | Path, **env: str) -> CompletedProcess[str]:
    """Run the command, with the variables `env` instead of all settings of this process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FRAMEDIT_", "REDIS_URL"))}
    return run(main, arguments, inherited | {"COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"} | env)


def python() -> None:
    """What the command `python` does with a file, or with `-c` and a program."""
    first, *others = sys.argv[1:]
    if first == "-c":
        sys.argv = [first, *others[1:]]
        exec(others[0], {"__name__": "__main__"})
    else:
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")


class _ForkedChild(Forked):
    """A command that is forked from its supervisor, and ends with it."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._start(_FORK.Process(target=_run_child, args=(arguments, env, die_with_parent(signal.SIGTERM))))


def supervise() -> None:
    """The `framedit` command. Where it supervises other commands, they are forked from it."""
    cli.processes.supervisor.spawn = _fork  # type: ignore[assignment]
    main()


def _fork(
    command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = (), output: IO[bytes] | None = None
) -> _ForkedChild:
    assert tuple(command[: len(FRAMEDIT)]) == FRAMEDIT
    return _ForkedChild(command[len(FRAMEDIT) :], {**os.environ, **env})


def _run_child(arguments: Sequence[str], env: Mapping[str, str], die: Callable[[], None] | None) -> None:
    if die is not None:
        die()
    # Not the supervisor's.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _run(main, arguments, env)


def _run(
    program: Callable[[], None],
    arguments: Sequence[str],
    env: Mapping[str, str],
    outputs: Sequence[Path] = (),
    folder: Path | None = None,
) -> None:
    os.setpgid(0, 0)
    for descriptor, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    if folder:
        os.chdir(folder)
    sys.argv = ["framedit", *arguments]
    try:
        program()
    finally:
        atexit._run_exitfuncs()
