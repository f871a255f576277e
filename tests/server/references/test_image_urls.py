"""Images that the server downloads, over real sockets, on an internet whose names and addresses end on this machine.

A public address leads to the host of the test. Everything before that, from the setting to the connection, is real.
"""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from server.references import download
from tests.server.references.test_requests import PROMPT, make_png
from tests.server.serving import serving
from tests.waiting import wait_for

PUBLIC = "93.184.216.34"
MAX_BYTES = 20_000
TIMEOUT_SECONDS = 1.5


@dataclass
class Host:
    """A web server. `paths` are those that it was asked for; a slow answer ends when the test lets it (`open`)."""

    port: int
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    host: Host

    def do_GET(self) -> None:
        self.host.paths.append(self.path)
        self.host.headers.append(dict(self.headers))
        getattr(self, self.path.strip("/").replace("-", "_"))()

    def picture(self, status: int = 200, content: bytes | None = None) -> None:
        self._send(status, make_png() if content is None else content)

    def redirect(self) -> None:
        """To a picture of a private address, and with a picture of its own."""
        self._send(302, make_png(), {"Location": f"{self.host.url}/picture"})

    def oversize(self) -> None:
        """Announced honestly."""
        self._send(200, make_png() + bytes(MAX_BYTES))

    def endless(self) -> None:
        """Without a length, until the reader leaves."""
        self._send(200, make_png(), {"Content-Length": None})
        while not self.host.open.wait(0.001):
            self.wfile.write(bytes(1000))

    def slow_head(self) -> None:
        self.host.open.wait()

    def slow_body(self) -> None:
        """A byte now and then, so that no read times out."""
        self._send(200, b"", {"Content-Length": "1000"})
        while not self.host.open.wait(0.05):
            self.wfile.write(b"x")

    def cut(self) -> None:
        self._send(200, make_png(), {"Content-Length": "100000"})

    def page(self) -> None:
        self._send(200, b"<html>not found</html>", {"Content-Type": "image/png"})

    def playlist(self) -> None:
        self._send(200, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")

    def empty(self) -> None:
        self._send(200, b"")

    def missing(self) -> None:
        self.picture(404)

    def part(self) -> None:
        self.picture(206)

    def no_http(self) -> None:
        self.wfile.write(b"220 mail.example.com ESMTP\r\n")

    def _send(self, status: int, content: bytes, headers: dict[str, str | None] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A reader that leaves in the middle is expected."""


@pytest.fixture
def host() -> Iterator[Host]:
    handler = type("HostHandler", (Handler,), {})
    server = QuietServer(("127.0.0.1", 0), handler)
    host = handler.host = Host(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield host
    finally:
        host.open.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Internet:
    """Names with their addresses, and the addresses that were connected to."""

    names: dict[str, list[str]]
    connected: list[str] = field(default_factory=list)


@pytest.fixture
def internet(host: Host, monkeypatch: pytest.MonkeyPatch) -> Internet:
    internet = Internet({"pictures.example": [PUBLIC]})
    ask, connect = socket.getaddrinfo, httpcore.AnyIOBackend.connect_tcp

    def getaddrinfo(name: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        text = name.decode() if isinstance(name, bytes) else name
        answers = internet.names.get(text, [name])
        return [answer for each in answers for answer in ask(each, port, *arguments, **options)]

    async def connect_tcp(self: Any, address: str, port: int, *arguments: Any) -> httpcore.AsyncNetworkStream:
        internet.connected.append(address)
        there = "127.0.0.1" if address == PUBLIC else address
        return await connect(self, there, host.port if address == PUBLIC else port, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    return internet


@contextmanager
def downloading(image_urls: str, redis_server: str, folder: Path) -> Iterator[str]:
    """The URL of a server with this setting."""
    settings = Settings(
        redis_url=redis_server,
        data_dir=folder,
        artifacts=folder / "artifacts",
        image_urls=image_urls,
        max_upload_bytes=MAX_BYTES,
        reference_timeout_seconds=TIMEOUT_SECONDS,
    )
    with connect(redis_server) as redis:
        redis.flushall()  # the mark of another test's store
    with serving(settings) as url:
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the server")
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("public")


@pytest.fixture(scope="module")
def server_url(redis_server: str, folder: Path) -> Iterator[str]:
    with downloading("public", redis_server, folder) as url:
        yield url


def create(http: httpx.Client, url: str) -> httpx.Response:
    return http.post("/v1/videos", json=PROMPT | {"input_reference": {"image_url": url}})


def refusal(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == "input_reference"
    return str(error["message"])


@pytest.fixture(autouse=True)
def on_that_internet(internet: Internet) -> None:
    """No test may reach anybody."""


def test_an_image_of_a_public_address_starts_a_video(
    http: httpx.Client, host: Host, internet: Internet, folder: Path
) -> None:
    answer = create(http, "http://pictures.example/picture")
    assert answer.status_code == 200, answer.text
    assert (host.paths, internet.connected) == (["/picture"], [PUBLIC])
    assert host.headers[0]["Host"] == "pictures.example"
    video = answer.json()
    assert (video["reference"]["use"], video["source_video_id"]) == ("first", None)
    with ArtifactStore(folder / "artifacts").open(video["id"], "reference") as file:
        rgb = file.read()
    assert len(rgb) == 64 * 96 * 3
    assert min(rgb[::3]) > 240
    edit = http.post("/v1/videos/edits", json=PROMPT | {"video": {"image_url": "HTTP://pictures.example/picture"}})
    assert edit.status_code == 200, edit.text
    assert edit.json()["reference"]["use"] == "edit"


def test_a_redirect_is_not_followed(http: httpx.Client, host: Host, internet: Internet) -> None:
    assert "answers 302; it must answer 200" in refusal(create(http, "http://pictures.example/redirect"))
    assert (host.paths, internet.connected) == (["/redirect"], [PUBLIC])


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1"], ["10.0.0.1"], ["169.254.169.254"]]
)
def test_a_name_with_a_private_address_is_not_connected_to(
    http: httpx.Client, host: Host, internet: Internet, addresses: list[str]
) -> None:
    internet.names["pictures.example"] = addresses
    message = refusal(create(http, f"http://pictures.example:{host.port}/picture"))
    assert "its host must have a public address" in message
    assert not any(address in message for address in addresses)
    assert (host.paths, internet.connected) == ([], [])


def test_an_answer_of_the_dns_that_changes_has_no_effect(
    http: httpx.Client, host: Host, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public for the check, private for whoever asks again."""
    once = socket.getaddrinfo

    def rebinding(name: Any, *arguments: Any, **options: Any) -> Any:
        found = once(name, *arguments, **options)
        if name == "pictures.example":
            internet.names[name] = ["127.0.0.1"]
        return found

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert create(http, "http://pictures.example/picture").status_code == 200
    assert internet.connected == [PUBLIC]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"])
def test_this_machine_is_reached_by_none_of_its_names(http: httpx.Client, host: Host, name: str) -> None:
    assert "its host must have a public address" in refusal(create(http, f"http://{name}:{host.port}/picture"))
    assert host.paths == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("oversize", f"more than {MAX_BYTES} bytes"),
        ("endless", f"more than {MAX_BYTES} bytes"),
        ("slow-head", "takes longer than 1.5 s to download"),
        ("slow-body", "takes longer than 1.5 s to download"),
        ("cut", "cannot be downloaded"),
        ("no-http", "cannot be downloaded"),
        ("missing", "answers 404; it must answer 200"),
        ("part", "answers 206; it must answer 200"),
        ("page", "not an image or a video that can be read"),
        ("playlist", "not an image or a video that can be read"),
        ("empty", "not an image or a video that can be read"),
    ],
)
def test_bad_answers_are_refused_and_leave_nothing(
    http: httpx.Client, host: Host, folder: Path, path: str, message: str
) -> None:
    before, stored = time.monotonic(), set((folder / "artifacts").glob("video_*"))
    assert message in refusal(create(http, f"http://pictures.example/{path}"))
    assert time.monotonic() - before < 10 * TIMEOUT_SECONDS
    assert host.paths == [f"/{path}"]
    assert set((folder / "artifacts").glob("video_*")) == stored
    assert http.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///picture",
        "http://[::1/picture",
        "http://pictures.example:99999/picture",
        "http://pictures.example:port/picture",
        "http://pictures.example/a b\r\nX-Injected: 1",
        "http://pictures.ex\u00e4mple/picture",
        "http://" + "a" * 300 + ".example/picture",
        "https://pictures.example/picture",
        "file:///etc/passwd",
        "ftp://pictures.example/picture",
        "gopher://pictures.example/picture",
    ],
)
def test_a_url_that_is_none_is_refused(http: httpx.Client, host: Host, url: str) -> None:
    assert "/etc/passwd" not in refusal(create(http, url))
    assert host.paths == []


def test_slow_hosts_occupy_a_few_threads_only(http: httpx.Client, host: Host) -> None:
    with ThreadPoolExecutor(download.MAX_DOWNLOADS) as pool:
        slow = [pool.submit(create, http, "http://pictures.example/slow-head") for _ in range(download.MAX_DOWNLOADS)]
        wait_for(lambda: len(host.paths) == download.MAX_DOWNLOADS, "all downloads", poll_seconds=0.01)
        further = create(http, "http://pictures.example/picture")
        assert further.status_code == 503, further.text
        assert int(further.headers["retry-after"]) > 0
        assert [refusal(one.result()) for one in slow]
    assert create(http, "http://pictures.example/picture").status_code == 200


def test_a_lost_host_and_a_name_without_address_are_refused(http: httpx.Client, internet: Internet) -> None:
    assert "cannot be downloaded" in refusal(create(http, "http://nowhere.invalid/picture"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    internet.names["down.example"] = ["127.0.0.1"]
    assert "cannot be downloaded" in refusal(create(http, f"http://down.example:{port}/picture"))


@pytest.mark.parametrize("image_urls", ["data", "any"])
def test_the_setting_decides_what_is_downloaded(
    internet: Internet, host: Host, redis: Redis, redis_url: str, text_card: ModelCard, tmp_path: Path, image_urls: str
) -> None:
    with downloading(image_urls, redis_url, tmp_path) as url, httpx.Client(base_url=url, timeout=60) as http:
        announce(redis, text_card, "w1", ttl_seconds=600)
        if image_urls == "data":
            assert "not a data URL" in refusal(create(http, "http://pictures.example/picture"))
            assert (host.paths, internet.connected) == ([], [])
            return
        answer = create(http, f"{host.url}/picture")
        assert answer.status_code == 200, answer.text
        assert "answers 302" in refusal(create(http, f"{host.url}/redirect"))
        assert host.paths == ["/picture", "/redirect"]
