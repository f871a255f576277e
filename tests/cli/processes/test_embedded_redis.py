"""The embedded server with the real binary: durability, locking and shutdown."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from cli.processes.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from tests.waiting import wait_for


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis")
    yield server
    server.stop()


def is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int, timeout_seconds: float = 10) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


def test_it_writes_every_command_to_disk_and_listens_on_no_port(embedded: EmbeddedRedis) -> None:
    with Redis.from_url(embedded.start(), decode_responses=True) as client:
        assert client.info("server")["process_id"] == embedded.pid
        assert client.config_get("appendonly", "appendfsync", "port", "maxmemory-policy") == {
            "appendonly": "yes",
            "appendfsync": "always",
            "port": "0",
            "maxmemory-policy": "noeviction",
        }
    assert (embedded.data_dir / "redis.sock").stat().st_mode & 0o077 == 0


def test_a_restart_keeps_the_data(embedded: EmbeddedRedis) -> None:
    with Redis.from_url(embedded.start()) as client:
        client.set("key", "value")
    pid = embedded.pid
    assert pid is not None
    embedded.stop()
    assert not is_running(pid)
    with Redis.from_url(embedded.start()) as client:
        assert client.get("key") == b"value"


def test_a_killed_server_loses_nothing_and_can_be_restarted(embedded: EmbeddedRedis) -> None:
    with Redis.from_url(embedded.start()) as client:
        client.set("key", "value")
    assert embedded.pid is not None
    os.kill(embedded.pid, signal.SIGKILL)
    assert wait_until_gone(embedded.pid)
    embedded.stop()
    with Redis.from_url(embedded.start()) as client:
        assert client.get("key") == b"value"


def test_only_a_dead_server_is_restarted_and_at_the_same_url(embedded: EmbeddedRedis) -> None:
    url = embedded.start()
    assert not embedded.revive()
    with Redis.from_url(url) as client:
        client.set("key", "value")
    assert embedded.pid is not None
    os.kill(embedded.pid, signal.SIGKILL)
    while not embedded.revive():
        time.sleep(0.01)
    with Redis.from_url(url) as client:
        assert client.get("key") == b"value"


def test_an_incomplete_last_write_is_dropped_and_the_rest_kept(embedded: EmbeddedRedis) -> None:
    with Redis.from_url(embedded.start()) as client:
        client.set("key", "value")
        client.set("torn", "x" * 1000)
    embedded.stop()
    [log] = (embedded.data_dir / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 500)
    with Redis.from_url(embedded.start()) as client:
        assert client.get("key") == b"value"
        assert client.get("torn") is None


def test_a_folder_in_use_is_refused(embedded: EmbeddedRedis) -> None:
    with Redis.from_url(embedded.start()) as client:
        with pytest.raises(EmbeddedRedisError, match=rf"in use by another server \(process {embedded.pid}\)"):
            EmbeddedRedis(embedded.data_dir).start()
        assert client.ping()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match="cannot write to the data folder"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_damaged_data_is_an_error_that_shows_the_log(embedded: EmbeddedRedis) -> None:
    embedded.start()
    embedded.stop()
    [manifest] = (embedded.data_dir / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedRedisError, match=r"did not start: .*redis\.log"):
        embedded.start()


@pytest.mark.parametrize("name", ["with space & 'quotes'", "x" * 100, "ü"])
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    server = EmbeddedRedis(tmp_path / name)
    try:
        with Redis.from_url(server.start()) as client:
            assert client.set("key", "value")
        assert (tmp_path / name / "appendonlydir").is_dir()
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="a signal at the parent's death is a service of Linux")
def test_the_server_exits_with_its_killed_parent_and_releases_the_folder(embedded: EmbeddedRedis) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cli.processes.embedded_redis import EmbeddedRedis\n"
        "server = EmbeddedRedis(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(embedded.data_dir)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert wait_until_gone(pid)

    def started() -> str:
        with suppress(EmbeddedRedisError):
            return embedded.start()
        return ""

    # The system lets go of the files of a process a moment after it shows it as gone.
    assert wait_for(started, "the folder to be free again", 10)


def test_other_users_cannot_read_the_data(embedded: EmbeddedRedis) -> None:
    embedded.start()
    assert stat.S_IMODE(embedded.data_dir.stat().st_mode) == 0o700
    embedded.stop()
    embedded.data_dir.chmod(0o755)  # as version 0.1 made it
    embedded.start()
    assert stat.S_IMODE(embedded.data_dir.stat().st_mode) == 0o700


def test_a_new_data_folder_is_private(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "data" / "redis")
    try:
        server.start()
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    finally:
        server.stop()


def test_its_memory_is_limited(embedded: EmbeddedRedis) -> None:
    with Redis.from_url(embedded.start(), decode_responses=True) as client:
        found = client.config_get("maxmemory*")
    assert (found["maxmemory"], found["maxmemory-policy"]) == (str(512 << 20), "noeviction")
