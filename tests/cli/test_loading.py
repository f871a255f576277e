"""A database that loads its data slowly: every process waits for it, and can be stopped meanwhile."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import BusyLoadingError

import cli.processes.embedded_redis
from cli.main import main
from cli.processes.embedded_redis import EmbeddedRedis
from jobs.connection import connect, wait_until_loaded
from tests.e2e.conftest import environment, serving
from tests.forked import Forked
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for

WORDS = "Redis is loading its data; waiting for it"
WRITES = 200_000
# While it loads, it answers after every 1024 writes: four times a second, for 40 s unless the delay is removed.
DELAY_MICROSECONDS = 200


@pytest.fixture(scope="module")
def large_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server with many writes in its append-only file."""
    folder = tmp_path_factory.mktemp("large") / "redis"
    database = EmbeddedRedis(folder)
    with Redis.from_url(database.start()) as client, client.pipeline(transaction=False) as pipe:
        for number in range(WRITES):
            pipe.set(f"key-{number % 1000}", number)
        pipe.execute()
    database.stop()
    return folder


@pytest.fixture
def database(tmp_path: Path, large_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedRedis]:
    """A running server that needs long to load its data at its next start."""
    real = cli.processes.embedded_redis.server_binary()
    slow = tmp_path / "valkey-server"
    slow.write_text(f'#!/bin/sh\nexec "{real}" "$@" --key-load-delay {DELAY_MICROSECONDS}\n')
    slow.chmod(0o755)
    database = EmbeddedRedis(shutil.copytree(large_data, tmp_path / "redis"))
    database.start()
    monkeypatch.setattr(cli.processes.embedded_redis, "server_binary", lambda: slow)
    yield database
    database.stop()


@pytest.fixture
def url(database: EmbeddedRedis) -> str:
    """The URL of a database that is loading its data."""
    pid = database.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(database.revive, "the database")
    return database.url


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    return tmp_path / "checkpoints"


def hurry(url: str) -> None:
    """Remove the delay of the database, which must still be loading. A plain client: ours checks connections first."""
    with Redis.from_url(url) as client:
        with pytest.raises(BusyLoadingError):
            client.get("key-1")
        client.config_set("key-load-delay", 0)


@contextmanager
def running(log: Path, *arguments: str | Path, **env: str) -> Iterator[Forked]:
    process = Forked(main, arguments, environment(log.parent / "data") | env, log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Run `action` in a thread beside the block. The server must be started by the main thread: it ends with it."""
    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(action)
        yield
        done.result()


def test_a_start_waits_until_the_data_is_loaded(database: EmbeddedRedis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    has_started = threading.Event()

    def hurry_when_it_waits() -> None:
        wait_for(lambda: WORDS in caplog.text, "it to wait")
        assert not has_started.is_set()
        hurry(database.url)

    database.stop()
    with meanwhile(hurry_when_it_waits):
        database.start()
        has_started.set()
    with Redis.from_url(database.url) as client:
        assert client.get("key-999") == str(WRITES - 1).encode()


def test_a_start_outlasts_a_server_that_is_late_with_an_answer(
    database: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def stop_for_a_while() -> None:
        wait_for(lambda: WORDS in caplog.text, "it to wait")
        pid = database.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5.5)  # longer than the client waits for an answer
        os.kill(pid, signal.SIGCONT)
        hurry(database.url)
        stopped.append(pid)

    stopped: list[int] = []
    database.stop()
    with meanwhile(stop_for_a_while):
        database.start()
    assert stopped == [database.pid], "it was not given up"


def test_a_restart_does_not_wait_until_the_data_is_loaded(url: str) -> None:
    """The supervisor must not block: the other processes wait on their own."""
    with connect(url) as client, pytest.raises(BusyLoadingError):
        client.get("key-999")


def test_waiting_has_a_timeout(url: str) -> None:
    with connect(url) as client, pytest.raises(BusyLoadingError):
        wait_until_loaded(client, timeout_seconds=0.2)


def test_a_worker_waits_for_a_loading_database(url: str, checkpoints: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(log, "worker", "--burst", "--checkpoints", checkpoints, REDIS_URL=url) as worker:
        wait_for(lambda: WORDS in log.read_text(), "the worker to wait")
        hurry(url)
        assert worker.wait(90) == 0, log.read_text()
    assert "Redis is not available" not in log.read_text()


def test_serve_waits_for_a_loading_database(url: str, checkpoints: Path, tmp_path: Path) -> None:
    log = tmp_path / "data.log"

    def hurry_when_it_waits() -> None:
        wait_for(lambda: log.exists() and WORDS in log.read_text(), "it to wait")
        hurry(url)

    with meanwhile(hurry_when_it_waits), serving(tmp_path / "data", checkpoints, REDIS_URL=url) as served:
        done = served.wait_until(served.post()["id"], "completed", "failed")
        assert done["status"] == "completed", done


@pytest.mark.parametrize(("what", "number"), [("worker", signal.SIGTERM), ("serve", signal.SIGINT)])
def test_a_waiting_process_exits_on_a_signal(
    url: str, checkpoints: Path, tmp_path: Path, what: str, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    arguments = [what, "--checkpoints", checkpoints, "--data-dir", tmp_path / "data"]
    with running(log, *arguments, REDIS_URL=url, FRAMEDIT_PORT="0") as process:
        wait_for(lambda: WORDS in log.read_text(), "it to wait")
        process.send_signal(number)
        assert process.wait(60) == 0
    assert f"stopped by {number.name} during the start" in log.read_text()
    assert "Traceback" not in log.read_text()
