"""Real child processes that die, and a supervisor that is asked to stop."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from cli.supervisor import ChildFailedError, Program, Supervisor, describe_exit


def program(name: str, code: str, **options: object) -> Program:
    return Program(name, lambda: [sys.executable, "-c", code], {}, **options)  # type: ignore[arg-type]


def stop_when(path: Path, lines: int) -> None:
    """Be told to stop once the file has so many lines."""
    if path.exists() and len(path.read_text().splitlines()) >= lines:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_program_that_dies_is_started_again_ever_more_slowly(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    deaths: list[None] = []
    code = f"import time; open({str(starts)!r}, 'a').write(f'{{time.time()}}\\n'); raise SystemExit(1)"
    dying = program("worker", code, on_death=lambda: deaths.append(None))
    Supervisor([dying], alive=lambda: stop_when(starts, 3)).run(on_started=lambda: True)
    first, second, third = map(float, starts.read_text().splitlines()[:3])
    assert second - first >= 0.5
    assert third - second >= 1.0
    assert len(deaths) >= 2


def test_a_program_that_cannot_run_ends_everything(tmp_path: Path) -> None:
    healthy = program("server", "import time; time.sleep(60)")
    hopeless = program("worker", "raise SystemExit(2)")
    with pytest.raises(ChildFailedError, match="the worker cannot run"):
        Supervisor([hopeless, healthy]).run(on_started=lambda: True)
    assert healthy.process is not None
    assert healthy.process.poll() == -signal.SIGTERM


def test_it_asks_to_stop_and_waits_and_kills_what_does_not(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"import signal, time; signal.signal(signal.SIGTERM, {{}}); open({str(ready)!r}, 'a').write('x\\n')"
    polite = program("server", code.format("lambda *_: exit(0)") + "; time.sleep(60)")
    deaf = program("worker", code.format("signal.SIG_IGN") + "; time.sleep(60)", stop_timeout_seconds=0.5)
    Supervisor([polite, deaf], alive=lambda: stop_when(ready, 2)).run(on_started=lambda: True)
    assert polite.process is not None
    assert deaf.process is not None
    assert (polite.process.poll(), deaf.process.poll()) == (0, -signal.SIGKILL)


def test_what_else_is_needed_ends_everything_when_it_is_gone() -> None:
    child = program("server", "import time; time.sleep(60)")

    def gone() -> None:
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        Supervisor([child], alive=gone).run(on_started=lambda: True)
    assert child.process is not None
    assert child.process.poll() == -signal.SIGTERM


def test_the_users_signals_are_handled_only_while_it_runs() -> None:
    before = signal.getsignal(signal.SIGINT)
    supervisor = Supervisor([], alive=lambda: os.kill(os.getpid(), signal.SIGINT))
    supervisor.run(on_started=lambda: True)
    assert signal.getsignal(signal.SIGINT) is before


def test_started_is_asked_until_it_says_so() -> None:
    answers = [False, False, True]
    asked: list[bool] = []

    def on_started() -> bool:
        asked.append(answers[len(asked)])
        return asked[-1]

    deadline = time.monotonic() + 1.0
    Supervisor([], alive=lambda: time.monotonic() > deadline and os.kill(os.getpid(), signal.SIGINT)).run(on_started)  # type: ignore[arg-type,func-returns-value,return-value]
    assert asked == answers


def test_ends_are_told_in_words() -> None:
    assert describe_exit(1) == "ended with status 1"
    assert describe_exit(-9) == "was killed by SIGKILL"


def test_a_program_that_keeps_dying_is_taken_out_and_the_others_go_on(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    deaths: list[None] = []
    dying = program("worker on cuda:1", f"open({str(starts)!r}, 'a').write('x\\n'); raise SystemExit(1)")
    dying.deaths_before_taken_out, dying.on_death = 2, lambda: deaths.append(None)
    hopeless = program("worker on cuda:2", "raise SystemExit(2)")
    hopeless.deaths_before_taken_out = 2
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


def test_without_a_last_one_it_ends() -> None:
    hopeless = program("worker on cuda:0", "raise SystemExit(2)")
    hopeless.deaths_before_taken_out = 3
    with pytest.raises(ChildFailedError, match="was the last one"):
        Supervisor([hopeless]).run(on_started=lambda: True)
