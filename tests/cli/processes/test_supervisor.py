"""The supervisor with real child processes that die."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from cli.processes.supervisor import ChildFailedError, Program, Supervisor, describe_exit


def program(name: str, code: str, **options: object) -> Program:
    return Program(name, lambda: [sys.executable, "-c", code], {}, **options)  # type: ignore[arg-type]


def stop_when(path: Path, lines: int) -> None:
    """Send SIGTERM to this process once the file has this many lines."""
    if path.exists() and len(path.read_text().splitlines()) >= lines:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_dead_program_is_restarted_with_growing_backoff(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    deaths: list[None] = []
    code = f"import time; open({str(starts)!r}, 'a').write(f'{{time.time()}}\\n'); raise SystemExit(1)"
    dying = program("worker", code, on_death=lambda: deaths.append(None))
    Supervisor([dying], alive=lambda: stop_when(starts, 3)).run(on_started=lambda: True)
    first, second, third = map(float, starts.read_text().splitlines()[:3])
    assert second - first >= 0.5
    assert third - second >= 1.0
    assert len(deaths) >= 2


def test_a_required_program_that_cannot_run_stops_all(tmp_path: Path) -> None:
    healthy = program("server", "import time; time.sleep(60)")
    hopeless = program("worker", "raise SystemExit(2)")
    with pytest.raises(ChildFailedError, match="the worker cannot run"):
        Supervisor([hopeless, healthy]).run(on_started=lambda: True)
    assert healthy.process is not None
    assert healthy.process.poll() == -signal.SIGTERM


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"import signal, time; signal.signal(signal.SIGTERM, {{}}); open({str(ready)!r}, 'a').write('x\\n')"
    polite = program("server", code.format("lambda *_: exit(0)") + "; time.sleep(60)")
    deaf = program("worker", code.format("signal.SIG_IGN") + "; time.sleep(60)", stop_timeout_seconds=0.5)
    Supervisor([polite, deaf], alive=lambda: stop_when(ready, 2)).run(on_started=lambda: True)
    assert polite.process is not None
    assert deaf.process is not None
    assert (polite.process.poll(), deaf.process.poll()) == (0, -signal.SIGKILL)


def test_a_failure_of_another_required_part_stops_all() -> None:
    child = program("server", "import time; time.sleep(60)")

    def gone() -> None:
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        Supervisor([child], alive=gone).run(on_started=lambda: True)
    assert child.process is not None
    assert child.process.poll() == -signal.SIGTERM


def test_signal_handlers_are_restored_after_a_run() -> None:
    before = signal.getsignal(signal.SIGINT)
    supervisor = Supervisor([], alive=lambda: os.kill(os.getpid(), signal.SIGINT))
    supervisor.run(on_started=lambda: True)
    assert signal.getsignal(signal.SIGINT) is before


def test_on_started_is_called_until_it_returns_true() -> None:
    answers = [False, False, True]
    asked: list[bool] = []

    def on_started() -> bool:
        asked.append(answers[len(asked)])
        return asked[-1]

    deadline = time.monotonic() + 1.0
    Supervisor([], alive=lambda: time.monotonic() > deadline and os.kill(os.getpid(), signal.SIGINT)).run(on_started)  # type: ignore[arg-type,func-returns-value,return-value]
    assert asked == answers


def test_exit_statuses_are_described() -> None:
    assert describe_exit(1) == "exited with status 1"
    assert describe_exit(-9) == "was killed by SIGKILL"


def test_a_program_that_keeps_dying_is_removed_and_the_others_go_on(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    deaths: list[None] = []
    dying = program("worker on cuda:1", f"open({str(starts)!r}, 'a').write('x\\n'); raise SystemExit(1)")
    dying.deaths_before_removal, dying.on_death = 2, lambda: deaths.append(None)
    hopeless = program("worker on cuda:2", "raise SystemExit(2)")
    hopeless.deaths_before_removal = 2
    healthy = program("worker on cuda:0", "import time; time.sleep(60)")
    supervisor = Supervisor([hopeless, dying, healthy])

    def stop_when_alone() -> None:
        if supervisor.programs == [healthy]:
            os.kill(os.getpid(), signal.SIGTERM)

    supervisor.alive = stop_when_alone
    supervisor.run(on_started=lambda: True)
    assert len(starts.read_text().splitlines()) == len(deaths) == 2
    assert healthy.process is not None
    assert healthy.process.poll() == -signal.SIGTERM


def test_the_removal_of_the_last_program_ends_the_run() -> None:
    hopeless = program("worker on cuda:0", "raise SystemExit(2)")
    hopeless.deaths_before_removal = 3
    with pytest.raises(ChildFailedError, match="no other program is left"):
        Supervisor([hopeless]).run(on_started=lambda: True)
