"""Attacks without an API key on a server of this machine, each bounded in count and time."""

import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress

import httpx

from tests.abuse.server import Server

Attack = Callable[[Server, float], None]
"""Takes the server and the scale of the attack; 1 is the long form."""

_GET = b"GET /v1/videos HTTP/1.1\r\nHost: localhost\r\n"
_POST = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_FORM = {"Content-Type": "application/x-www-form-urlencoded; charset={}"}
_ASK = {"model": "abused", "prompt": "x"}


def tiny_headers(server: Server, scale: float) -> None:
    """60 MB of header lines of five bytes, over ten connections."""
    for _ in range(10):
        _send(server, [_GET, *[b"a:b\r\n" * 13_000] * int(92 * scale)])


def one_header(server: Server, scale: float) -> None:
    """One header value without an end."""
    _send(server, [_GET, b"a: ", *[b"x" * 65_536] * int(900 * scale)])


def long_urls(server: Server, scale: float) -> None:
    for _ in range(int(50 * scale)):
        _send(server, [b"GET /", b"x" * 1_000_000])


def pipelined(server: Server, scale: float) -> None:
    """Requests sent ahead of their answers."""
    for _ in range(int(20 * scale)):
        _send(server, [(_GET + b"\r\n") * 5000])


def half_requests(server: Server, scale: float) -> None:
    """More connections than the server admits, each with an incomplete request."""
    with ExitStack() as stack:
        for _ in range(int(1500 * scale)):
            client = stack.enter_context(socket.create_connection(server.address, timeout=10))
            client.sendall(_GET)
        time.sleep(3)


def stalled_bodies(server: Server, scale: float) -> None:
    """Large bodies that stop before their end."""
    with ExitStack() as stack:
        for _ in range(int(200 * scale)):
            client = stack.enter_context(socket.create_connection(server.address, timeout=10))
            _try(client, [_POST + b"Content-Length: 1000000\r\n\r\n", b"[" * 990_000])
        time.sleep(3)


def quadratic_charset(server: Server, scale: float) -> None:
    """A form whose charset takes quadratic time to decode."""
    headers = {name: value.format("punycode") for name, value in _FORM.items()}
    for _ in range(max(1, int(5 * scale))):
        _post(server, content=b"prompt=" + b"a-" * 400_000, headers=headers)


def charset_names(server: Server, scale: float) -> None:
    """Names of unknown charsets."""
    with httpx.Client(timeout=60) as client:
        for number in range(int(2500 * scale)):
            headers = {name: value.format(f"{number}-" + "x" * 1000) for name, value in _FORM.items()}
            client.post(f"{server.url}/v1/videos", content=b"prompt=x", headers=headers)


def nested_json(server: Server, scale: float) -> None:
    """A JSON body with many small objects."""
    for _ in range(max(1, int(20 * scale))):
        _post(server, content=b'{"a":[' + b"{}," * 300_000 + b"{}]}", headers={"Content-Type": "application/json"})


def foreign_pages(server: Server, scale: float) -> None:
    """Forms of foreign web pages, and a rebound DNS name."""
    for headers in ({"Origin": "https://evil.example"}, {"Host": "rebound.example"}) * int(20 * scale):
        answer = httpx.post(f"{server.url}/v1/videos", data=_ASK, headers=headers)
        assert answer.status_code == 403, answer.text


def fat_videos(server: Server, scale: float) -> None:
    """Requests for ten videos each, with the most metadata that is allowed, in characters of four bytes."""
    body = _ASK | {"n": 10, "metadata": {str(number): "\U0001f534" * 512 for number in range(4)}}
    for _ in range(int(100 * scale)):
        _post(server, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        tiny_headers,
        one_header,
        long_urls,
        pipelined,
        half_requests,
        stalled_bodies,
        quadratic_charset,
        charset_names,
        nested_json,
        foreign_pages,
        fat_videos,
    )
}


def _send(server: Server, chunks: Iterable[bytes]) -> None:
    with socket.create_connection(server.address, timeout=10) as client:
        _try(client, chunks)


def _try(client: socket.socket, chunks: Iterable[bytes]) -> None:
    try:
        for chunk in chunks:
            client.sendall(chunk)
    except OSError:
        pass  # the server closed the connection or stopped reading


def _post(server: Server, content: bytes, headers: Mapping[str, str]) -> None:
    with suppress(httpx.TransportError):
        httpx.post(f"{server.url}/v1/videos", content=content, headers=headers, timeout=60)
