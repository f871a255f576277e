"""Redis over TLS: every connection uses it, and a certificate that is not accepted is a clear error."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
from redis.connection import parse_url
from redis.exceptions import RedisError

from cli.main import main
from jobs.connection import check_certificate, connect, connect_async
from jobs.errors import RedisCertificateError
from jobs.settings import Settings
from tests.e2e.conftest import environment
from tests.forked import Forked, framedit
from tests.server.event_stream import following
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.tls import Authority, ending_tls
from tests.waiting import wait_for
from worker.main import run_worker


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "the CA of the tests")


@pytest.fixture
def unix_socket(redis_url: str) -> str:
    return str(parse_url(redis_url)["path"])


@pytest.fixture
def tls_url(unix_socket: str, authority: Authority) -> Iterator[str]:
    """The URL of a Redis with a certificate for 127.0.0.1, without its CA."""
    with ending_tls(unix_socket, authority, authority.sign("redis", "127.0.0.1")) as port:
        yield f"rediss://127.0.0.1:{port}/0"


@pytest.fixture
def received() -> Iterator[tuple[str, "Queue[bytes]"]]:
    """The URL of a webhook receiver, and the requests it received."""
    bodies: Queue[bytes] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", bodies
        server.shutdown()
        thread.join()


@contextmanager
def running(log: Path, env: dict[str, str], *arguments: str) -> Iterator[Forked]:
    process = Forked(main, arguments, environment(log.parent) | env, log)
    try:
        yield process
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_server_workers_events_webhooks_and_rq_use_tls(
    tls_url: str, authority: Authority, received: tuple[str, "Queue[bytes]"], tmp_path: Path
) -> None:
    url = f"{tls_url}?ssl_ca_certs={authority.certificate_file}"
    webhook_url, bodies = received
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    env = {
        "FRAMEDIT_REDIS_URL": url,
        "FRAMEDIT_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "FRAMEDIT_WEBHOOK_SECRET": "of the tests, of the tests",
        "FRAMEDIT_WEBHOOK_ALLOW_PRIVATE": "true",
    }
    log = tmp_path / "server.log"
    with running(tmp_path / "worker.log", env, "worker"), running(log, env, "server", "--port", "0"):
        address = wait_for(lambda: re.search(r"listening on (http://\S+)", log.read_text()), "the server")
        with httpx.Client(base_url=address[1], timeout=30) as http:
            wait_for(lambda: http.get("/v1/models/tiny").status_code == 200, "the worker", 240)
            body = {"model": "tiny", "class_label": "right", "webhook_url": webhook_url}
            video_id = http.post("/v1/videos", json=body).json()["id"]
            with following(http, video_id) as events:
                assert [event.name for event in events][-1] == "completed"
            assert http.get("/readyz").status_code == 200
        assert video_id.encode() in bodies.get(timeout=60)
        health = framedit("health", "worker", **env, FRAMEDIT_DATA_DIR=str(tmp_path))
        assert health.returncode == 0, health.stderr
        rq = [sys.executable, "-m", "rq.cli", "info", "--url", url]
        assert "1 workers" in subprocess.run(rq, capture_output=True, text=True, check=True).stdout


def test_a_certificate_of_an_unknown_authority_keeps_the_server_from_starting(tls_url: str, tmp_path: Path) -> None:
    ended = framedit("server", "--port", "0", FRAMEDIT_REDIS_URL=tls_url, FRAMEDIT_DATA_DIR=str(tmp_path))
    assert ended.returncode == 2
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("framedit: ")]
    assert "the certificate that Redis shows is not accepted: unable to get local issuer certificate" in line
    assert "?ssl_ca_certs=FILE" in line


def test_a_worker_does_not_wait_for_a_redis_with_the_certificate_of_another_host(
    unix_socket: str, authority: Authority, tmp_path: Path
) -> None:
    make_tiny_checkpoint(tmp_path / "tiny")
    with ending_tls(unix_socket, authority, authority.sign("elsewhere")) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate_file}"
        settings = Settings(redis_url=url, data_dir=tmp_path, checkpoints=tmp_path, device="cpu")
        with pytest.raises(RedisCertificateError, match=r"IP address mismatch.* for '127\.0\.0\.1'"):
            run_worker(settings)


def test_asynchronous_connections_check_the_certificate(tls_url: str) -> None:
    async def ping() -> None:
        client = connect_async(tls_url)
        try:
            await client.ping()
        finally:
            await client.aclose()

    with pytest.raises(RedisError, match="certificate verify failed"):
        asyncio.run(ping())


def test_a_client_certificate_is_sent_to_redis(unix_socket: str, authority: Authority) -> None:
    certificate_file, key_file = authority.sign("client")
    with ending_tls(unix_socket, authority, authority.sign("redis", "127.0.0.1"), mutual=True) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate_file}"
        with closing(connect(url)) as without, pytest.raises(RedisError) as caught:
            without.ping()
        check_certificate(caught.value)  # it is not Redis's own that is wrong
        with closing(connect(f"{url}&ssl_certfile={certificate_file}&ssl_keyfile={key_file}")) as client:
            assert client.ping()


def test_unreadable_certificate_files_are_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("none.pem", "empty.pem"):
        with pytest.raises(ValueError, match=rf"names \S+/{name}, which cannot be read"):
            connect(f"rediss://127.0.0.1:1/0?ssl_ca_certs={tmp_path / name}")
    with pytest.raises(ValueError, match=r"ca\.pem or \S+none\.key, which cannot be read"):
        connect(f"rediss://127.0.0.1:1/0?ssl_certfile={authority.certificate_file}&ssl_keyfile={tmp_path}/none.key")


def test_an_outage_of_redis_is_not_a_certificate_error() -> None:
    with closing(connect("rediss://127.0.0.1:1/0")) as client, pytest.raises(RedisError) as caught:
        client.ping()
    check_certificate(caught.value)
