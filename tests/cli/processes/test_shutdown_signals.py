"""A process that receives a signal before it is ready exits promptly with status 0."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import command, descendants, environment
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for

# As the first process of a PID namespace, whose signals do nothing unless it has a handler for them.
AS_FIRST = ["unshare", "--pid", "--fork", "--kill-child"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "tiny")
    return root


@contextmanager
def worker(log: Path, checkpoints: Path, redis_url: str, before: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    arguments = [*before, *command("worker", "--checkpoints", checkpoints, "--redis-url", redis_url)]
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, env=environment(log.parent / "data"), stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("moment", "number"), [("loading tiny", signal.SIGTERM), ("Redis is not available", signal.SIGINT)]
)
def test_a_starting_worker_exits_on_a_signal(
    checkpoints: Path, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    with worker(log, checkpoints, f"unix://{tmp_path}/none", []) as process:
        wait_for(lambda: moment in log.read_text(), moment)
        process.send_signal(number)
        assert process.wait(60) == 0
    assert f"stopped by {number.name} during the start" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("attempt", range(3))
def test_a_worker_exits_on_sigterm_at_any_moment(
    checkpoints: Path, tmp_path: Path, redis_url: str, attempt: int
) -> None:
    """While it imports torch, loads and warms up, and when it is ready."""
    log = tmp_path / "log"
    with worker(log, checkpoints, redis_url, []) as process:
        wait_for(lambda: _handles_sigterm(process.pid), "a handler for SIGTERM")
        time.sleep(random.uniform(0, 4))
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def _handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_worker_exits_as_the_first_process_of_a_container(checkpoints: Path, tmp_path: Path) -> None:
    if subprocess.run([*AS_FIRST, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a PID namespace")
    log = tmp_path / "log"
    with worker(log, checkpoints, f"unix://{tmp_path}/none", AS_FIRST) as process:
        wait_for(lambda: "Redis is not available" in log.read_text(), "the worker to wait")
        [first] = descendants(process.pid)
        os.kill(first, signal.SIGTERM)
        assert process.wait(60) == 0
    assert "stopped by SIGTERM during the start" in log.read_text()
