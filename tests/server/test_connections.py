"""Connections of hostile clients: raw sockets against a real server."""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from server.http.connections import ConnectionLimits
from tests.server.serving import serving
from tests.tls import Authority
from tests.waiting import wait_for

QUICK = ConnectionLimits(max_connections=8, head_seconds=1, stall_seconds=1)


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        yield client


def read_answer(client: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    received = b""
    while True:
        try:
            chunk = client.recv(65536)
        except ConnectionResetError:
            return received
        if not chunk:
            return received
        received += chunk


def send_all(client: socket.socket, chunks: list[bytes]) -> None:
    try:
        for chunk in chunks:
            client.sendall(chunk)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server has answered


@pytest.fixture
def quick_url(settings: Settings, redis: Redis) -> Iterator[str]:
    """A server that allows few connections and short delays."""
    with serving(settings, QUICK) as url:
        yield url


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        [GET, *[b"a:b\r\n" * 1000] * 100],
        [GET, b"a: ", *[b"x" * 8192] * 100],
        [GET, *[b"%s: b\r\n" % (b"n" * 5000)] * 20],
        [b"GET /", *[b"x" * 8192] * 100],
        [GET, b"x" * 100_000],
        [GET, b"a: b\r\n" * 200, b"\r\n"],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", *[b"a: b\r\n" * 1000] * 100],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n2;", *[b"x" * 8192] * 100],
    ],
    ids=["tiny headers", "one value", "long names", "url", "one name", "many lines", "trailers", "chunk extension"],
)
def test_a_head_that_is_too_large_is_refused(http: httpx.Client, chunks: list[bytes]) -> None:
    with connected(str(http.base_url)) as client:
        started = time.monotonic()
        send_all(client, chunks)
        answer = read_answer(client)
        assert time.monotonic() - started < 10
    assert answer.startswith(b"HTTP/1.1 431 ") or (b"chunked" in chunks[0] and not answer), answer[:200]
    if answer:
        assert b"connection: close" in answer
        assert b'"code": "request_head_too_large"' in answer
    assert http.get("/livez").status_code == 200


def test_heads_up_to_the_limit_are_read(http: httpx.Client) -> None:
    headers = {f"x-header-{i}": "v" * 600 for i in range(100)}
    assert http.get("/livez", headers=headers).status_code == 200


def test_bytes_that_are_no_http_get_an_error(http: httpx.Client) -> None:
    with connected(str(http.base_url)) as client:
        client.sendall(b"hello\r\n\r\n")
        assert read_answer(client).startswith(b"HTTP/1.1 400 ")


def test_requests_sent_ahead_are_limited(http: httpx.Client) -> None:
    with connected(str(http.base_url)) as client:
        send_all(client, [(GET + b"\r\n") * 4])
        received = b""
        while received.count(b'{"status":"ok"}') < 4:
            received += client.recv(65536)
    with connected(str(http.base_url)) as client:
        send_all(client, [(GET + b"\r\n") * 1000])
        assert read_answer(client).count(b"HTTP/1.1 200") < 20


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"HTTP/1.1 408 "),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (GET, b"HTTP/1.1 408 "),
        (b"\r\n\r\n", b"HTTP/1.1 408 "),
        (POST + b"Content-Length: 100\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
)
def test_a_stalled_request_is_closed(
    quick_url: str, sent: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "server.http.connections")
    with connected(quick_url) as client:
        started = time.monotonic()
        client.sendall(sent)
        assert read_answer(client).startswith(status)
        assert 0.5 < time.monotonic() - started < 10
    wait_for(lambda: "connections closed: 1 x request" in caplog.text, "the log line")


def test_a_slow_head_does_not_extend_its_deadline(quick_url: str) -> None:
    with connected(quick_url) as client:
        started = time.monotonic()
        client.settimeout(0.1)
        answer = b""
        client.sendall(GET)
        while not answer and time.monotonic() - started < 10:
            send_all(client, [b"a: b\r\n"])
            try:
                answer = client.recv(100)
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        assert time.monotonic() - started < 6


def test_an_unread_response_is_aborted(
    settings: Settings, redis: Redis, text_card: ModelCard, finish: Callable[[str, bytes], None]
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(settings, QUICK) as url, httpx.Client(base_url=url) as http:
        video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
        finish(video_id, b"x" * (32 << 20))
        with connected(url) as client:
            client.sendall(f"GET /v1/videos/{video_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            time.sleep(4)
            assert len(read_answer(client)) < 32 << 20
        assert len(http.get(f"/v1/videos/{video_id}/content").content) == 32 << 20


def test_idle_connections_are_replaced_by_new_ones(settings: Settings, redis: Redis) -> None:
    limits = ConnectionLimits(max_connections=8)
    with serving(settings, limits) as url, ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connected(url)).sendall(b"GET / HTTP/1.1\r\n")
        started = time.monotonic()
        assert httpx.get(f"{url}/v1/videos").status_code == 200
        assert time.monotonic() - started < 2


def test_a_server_full_of_requests_answers_503(settings: Settings, redis: Redis, text_card: ModelCard) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(settings, ConnectionLimits(max_connections=4)) as url, ExitStack() as stack:
        video_id = httpx.post(f"{url}/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
        for _ in range(4):
            follower = stack.enter_context(httpx.stream("GET", f"{url}/v1/videos/{video_id}/events", timeout=20))
            assert follower.status_code == 200
        refused = httpx.get(f"{url}/livez")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "server_full"
        stack.pop_all().close()
        wait_for(lambda: httpx.get(f"{url}/livez").status_code == 200, "a free connection")


def test_incomplete_heads_of_all_connections_are_bounded_together(settings: Settings, redis: Redis) -> None:
    with serving(settings, ConnectionLimits(max_pending_head_bytes=200_000)) as url, ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(20)]
        for client in clients:
            send_all(client, [GET + b"a: " + b"x" * 50_000])
        assert httpx.get(f"{url}/livez").status_code == 200
        clients[0].settimeout(5)
        assert read_answer(clients[0]) == b""  # closed, the oldest first


def test_the_server_speaks_tls(settings: Settings, redis: Redis, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.sign("localhost", "127.0.0.1")
    changes = {"tls_cert": certificate, "tls_key": key}
    trusted = ssl.create_default_context(cafile=authority.certificate_file)
    with serving(settings.model_copy(update=changes)) as url:
        assert httpx.get(f"{url}/v1/videos", verify=trusted).status_code == 200
        assert httpx.get(f"{url}/v1/videos", verify=trusted, headers={"Origin": url}).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http"))


def test_the_answers_do_not_name_the_software(http: httpx.Client) -> None:
    assert "server" not in http.get("/livez").headers
