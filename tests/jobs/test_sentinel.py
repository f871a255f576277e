"""Redis behind Sentinel: a primary that dies is followed by its replica. Real servers, a real sentinel."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from cli.main import main
from cli.processes.embedded_redis import server_binary
from jobs.connection import connect, connect_async
from jobs.sentinel import parse_sentinel_url
from jobs.settings_secrets import passwords_of
from tests.e2e.conftest import environment
from tests.forked import Forked
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for

PASSWORD = "of-the-tests"


def test_a_url_names_sentinels_service_and_database() -> None:
    url = "redis+sentinel://me:p%40ss@a:1,[::1]:2,c/main/3?socket_keepalive=true&sentinel_password=other"
    parsed = parse_sentinel_url(url)
    assert parsed.sentinels == [("a", 1), ("::1", 2), ("c", 26379)]
    assert parsed.service == "main"
    assert parsed.options == {"username": "me", "password": "p@ss", "db": 3, "socket_keepalive": True, "ssl": False}
    assert parsed.sentinel_options == {"ssl": False, "password": "other"}
    assert passwords_of(url) == {"p%40ss", "other"}


def test_tls_is_for_the_sentinels_too() -> None:
    parsed = parse_sentinel_url("rediss+sentinel://a/main?ssl_ca_certs=ca.pem")
    assert parsed.options == {"ssl": True, "ssl_ca_certs": "ca.pem"}
    assert parsed.sentinel_options == {"ssl": True, "ssl_ca_certs": "ca.pem"}


@pytest.mark.parametrize("url", ["redis+sentinel://a:26379", "redis+sentinel:///main"])
def test_a_url_without_sentinel_or_service_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="a URL of Sentinel is"):
        connect(url)


@dataclass
class Pair:
    """A primary, its replica and the sentinel that watches them, each on a port of this machine."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *options: str) -> None:
        self.ports[name] = free_port()
        home = self.folder / name
        home.mkdir()
        file = home / "server.conf"
        lines = (f"port {self.ports[name]}", "bind 127.0.0.1", f"dir {home}", *options)
        file.write_text("".join(f"{line}\n" for line in lines))
        arguments = [str(server_binary()), str(file), *(["--sentinel"] if name == "sentinel" else [])]
        with (home / "log").open("wb") as log:
            self.processes[name] = subprocess.Popen(arguments, stdout=log, stderr=log)

    def replicas_in_sync(self) -> int:
        with closing(Redis(port=self.ports["primary"], password=PASSWORD)) as client:
            return int(client.info("replication")["connected_slaves"])

    def replicas_known_to_sentinel(self) -> int:
        with closing(Redis(port=self.ports["sentinel"])) as client:
            return int(client.sentinel_masters()["main"]["num-slaves"])

    def fail_over(self) -> None:
        """Kill the primary, once its replica has all that was written: what it has not would be lost."""
        with closing(Redis(port=self.ports["primary"], password=PASSWORD)) as client:
            client.set("barrier", "")
            assert client.wait(1, 60_000) == 1
        self.processes["primary"].kill()

    @property
    def url(self) -> str:
        return f"redis+sentinel://:{PASSWORD}@127.0.0.1:{self.ports['sentinel']}/main/0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answered(count: Callable[[], int]) -> bool:
    try:
        return count() > 0
    except (RedisError, KeyError):
        return False


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path / "redis")
    pair.folder.mkdir()
    secret = (f"requirepass {PASSWORD}", f"primaryauth {PASSWORD}", "appendonly yes", "appendfsync always")
    try:
        pair.start("primary", *secret)
        pair.start("replica", *secret, f"replicaof 127.0.0.1 {pair.ports['primary']}", "repl-diskless-sync-delay 0")
        wait_for(lambda: answered(pair.replicas_in_sync), "the replica")
        pair.start(
            "sentinel",
            f"sentinel monitor main 127.0.0.1 {pair.ports['primary']} 1",
            f"sentinel auth-pass main {PASSWORD}",
            "sentinel down-after-milliseconds main 3000",
            "sentinel failover-timeout main 5000",
        )
        wait_for(lambda: answered(pair.replicas_known_to_sentinel), "the sentinel")
        yield pair
    finally:
        for process in pair.processes.values():
            process.kill()
            process.wait()


def test_server_and_worker_follow_the_primary(pair: Pair, tmp_path: Path) -> None:
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    env = environment(tmp_path) | {
        "FRAMEDIT_REDIS_URL": pair.url,
        "FRAMEDIT_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "FRAMEDIT_REDIS_TIMEOUT_SECONDS": "2",
    }
    logs = {name: tmp_path / f"{name}.log" for name in ("server", "worker")}
    processes = []
    try:
        for name, arguments in (("server", ["--port", "0"]), ("worker", [])):
            processes.append(Forked(main, [name, *arguments], env, logs[name]))
        address = wait_for(lambda: re.search(r"listening on (http://\S+)", logs["server"].read_text()), "the server")
        with httpx.Client(base_url=address[1], timeout=30) as http:
            wait_for(lambda: http.get("/v1/models/tiny").status_code == 200, "the worker", 240)
            before = accepted(http)
            wait_until_completed(http, before)
            pair.fail_over()
            after = wait_for(lambda: accepted(http), "a video that the new primary has accepted", 120)
            wait_until_completed(http, after)
            assert http.get(f"/v1/videos/{before}").json()["status"] == "completed"
        with closing(Redis(port=pair.ports["replica"], password=PASSWORD)) as client:
            assert client.info("replication")["role"] == "master"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            assert process.wait(60) == 0, {name: log.read_text() for name, log in logs.items()}


def accepted(http: httpx.Client) -> str:
    """The id of a new video; empty while Redis is away."""
    answer = http.post("/v1/videos", json={"model": "tiny", "class_label": "right"})
    return str(answer.json()["id"]) if answer.status_code == 200 else ""


def wait_until_completed(http: httpx.Client, video_id: str) -> None:
    wait_for(lambda: http.get(f"/v1/videos/{video_id}").json().get("status") == "completed", video_id, 120)


def test_an_event_loop_follows_it_too(pair: Pair) -> None:
    async def write(value: str) -> bool:
        client = connect_async(pair.url, 2.0)
        try:
            return bool(await client.set("key", value))
        except RedisError:
            return False
        finally:
            await client.aclose()

    assert asyncio.run(write("before"))
    pair.fail_over()
    wait_for(lambda: asyncio.run(write("after")), "the new primary", 120)
    with closing(connect(pair.url)) as client:
        assert client.get("key") == b"after"
