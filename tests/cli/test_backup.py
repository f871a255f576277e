"""The backup procedures of docs/operations.md, with a real server."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from cli.processes.embedded_redis import server_binary
from tests.waiting import wait_for

CONFIGURATION = {"appendonly": "yes", "appendfsync": "always", "save": ""}


@contextmanager
def running(folder: Path, **options: str) -> Iterator[Redis]:
    """A server with its data in `folder`, killed at the end."""
    settings = {"port": "0", "unixsocket": str(folder / "s"), "dir": str(folder), **CONFIGURATION, **options}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([server_binary(), *arguments], stdout=log, stderr=log)
    try:
        with Redis(unix_socket_path=str(folder / "s")) as client:
            wait_for(lambda: answers(client), "the server")
            yield client
    finally:
        process.kill()
        process.wait()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except (RedisError, OSError):
        return False


def is_rewriting(client: Redis) -> bool:
    state = client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of the server that is backed up, and the folder for the restored data."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    return tmp_path / "old", tmp_path / "new"


def test_a_copy_of_the_append_only_file_restores_the_data(folders: tuple[Path, Path]) -> None:
    old, new = folders
    with running(old) as client:
        client.set("video", "accepted")
        client.config_set("auto-aof-rewrite-percentage", 0)
        wait_for(lambda: not is_rewriting(client), "the end of a rewrite")
        shutil.copytree(old / "appendonlydir", new / "appendonlydir")
        client.config_set("auto-aof-rewrite-percentage", 100)
    with running(new) as client:
        assert client.get("video") == b"accepted"


def test_a_snapshot_is_loaded_without_the_append_only_file(folders: tuple[Path, Path]) -> None:
    old, new = folders
    with running(old) as client:
        client.set("video", "accepted")
        client.save()
        shutil.copy(old / "dump.rdb", new / "dump.rdb")
    with running(new) as client:
        assert client.dbsize() == 0  # what the page warns of
    shutil.rmtree(new / "appendonlydir")
    with running(new, appendonly="no") as client:
        client.config_set("appendonly", "yes")
        wait_for(lambda: not is_rewriting(client), "the append-only file")
    with running(new) as client:
        assert client.get("video") == b"accepted"
