"""Webhooks as their receiver sees them: a real HTTP server, and the official client, which checks the signature."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from redis import Redis

from jobs import webhooks
from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.store import VideoStore
from jobs.webhooks import WEBHOOKS_KEY, line_key, receiver_of
from server import webhook_sender

from .serving import serving

SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


@dataclass
class Receiver:
    """Answers with one of `statuses` after the other, the last one for good, as soon as it may (`open`)."""

    statuses: list[int] = field(default_factory=lambda: [200])
    received: Queue[tuple[dict[str, str], bytes]] = field(default_factory=Queue)
    open: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def next(self) -> tuple[dict[str, str], bytes]:
        return self.received.get(timeout=60)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    receiver = Receiver()
    receiver.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.received.put(({k.lower(): v for k, v in self.headers.items()}, body))
            receiver.open.wait()
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            self.send_response(status)
            if status == 302:
                self.send_header("location", receiver.url)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?a=b"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(webhooks, "RETRY_SECONDS", (0, 0, 0))


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url, artifacts=tmp_path, webhook_secret=SECRET, webhook_allow_private=True, data_dir=tmp_path
    )


@pytest.fixture
def http(settings: Settings, redis: Redis, text_card: ModelCard, quick: None) -> Iterator[httpx.Client]:
    """A client of a server that sends webhooks, also on this machine."""
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def create(http: httpx.Client, webhook_url: str, **fields: Any) -> httpx.Response:
    body = {"model": "tiny-text", "prompt": "a red circle", "webhook_url": webhook_url}
    return http.post("/v1/videos", json=body | fields)


def wait_until(condition: Callable[[], object]) -> None:
    done = threading.Event()
    for _ in range(3000):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("waited for a minute in vain")


def test_the_official_client_takes_the_message_for_what_it_is(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver
) -> None:
    video_id = create(http, receiver.url).json()["id"]
    store.fail(video_id, "out_of_memory", "the device has too little memory")
    headers, body = receiver.next()
    event = OpenAI(api_key="unused").webhooks.unwrap(body, headers, secret=SECRET).to_dict()
    assert (event["type"], event["object"], event["id"]) == ("video.failed", "event", headers["webhook-id"])
    assert event["data"] == http.get(f"/v1/videos/{video_id}").json()
    assert headers["content-type"] == "application/json"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        OpenAI(api_key="unused").webhooks.unwrap(body + b" ", headers, secret=SECRET)
    wait_until(lambda: redis.exists(WEBHOOKS_KEY) == 0)


@pytest.mark.parametrize("refusal", [500, 404, 302])
def test_what_is_not_received_is_sent_again_as_the_same_event(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, refusal: int
) -> None:
    receiver.statuses = [refusal, refusal, 204]
    store.cancel(create(http, receiver.url).json()["id"])
    ids = {receiver.next()[0]["webhook-id"] for _ in range(3)}
    assert len(ids) == 1
    wait_until(lambda: redis.exists(WEBHOOKS_KEY) == 0)
    assert receiver.received.empty(), "a redirect was followed, or it was sent once too often"


def test_a_receiver_that_never_listens_is_given_up(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [503]
    store.cancel(create(http, receiver.url).json()["id"])
    wait_until(lambda: "webhook given up after attempt 4: answered 503" in caplog.text)
    wait_until(lambda: redis.exists(WEBHOOKS_KEY) == 0)
    assert receiver.received.qsize() == 4


def test_each_of_several_videos_is_told_of_and_a_deleted_one_is_not(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [video["id"] for video in create(http, receiver.url, n=3).json()["data"]]
    with redis.pipeline() as pipe:  # nobody sends in between
        pipe.zadd(WEBHOOKS_KEY, {receiver_of(receiver.url): 0})
        pipe.zadd(line_key(receiver_of(receiver.url)), {ids[0]: 0})
        pipe.delete(f"framedit:video:{ids[0]}")
        pipe.execute()
    for video_id in ids[1:]:
        store.cancel(video_id)
    told = {
        OpenAI(api_key="unused").webhooks.unwrap(b, h, secret=SECRET).to_dict()["data"]["id"]  # type: ignore[index]
        for h, b in (receiver.next(), receiver.next())
    }
    assert told == set(ids[1:])
    wait_until(lambda: redis.exists(WEBHOOKS_KEY) == 0)


def test_a_slow_receiver_delays_nobody_else_and_gets_all_of_its_own(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "_SEND_SECONDS", 600)  # slow, not given up
    limit = webhook_sender._AT_ONCE_EACH
    with receiving() as slow:
        slow.open.clear()
        for _ in range(5):  # before the others, and more than are sent at once to anybody
            for video in create(http, slow.url, n=10).json()["data"]:
                store.cancel(video["id"])
        wait_until(lambda: slow.received.qsize() >= limit)
        for _ in range(3):
            store.cancel(create(http, receiver.url).json()["id"])
            receiver.next()
        assert slow.received.qsize() == limit
        slow.open.set()
        ids = {slow.next()[0]["webhook-id"] for _ in range(50)}
        wait_until(lambda: redis.exists(WEBHOOKS_KEY) == 0)
    assert len(ids) == 50
    assert slow.received.empty(), "one was sent twice"


def test_a_webhook_outlives_the_server(
    settings: Settings, redis: Redis, store: VideoStore, text_card: ModelCard, receiver: Receiver, quick: None
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(settings) as url, httpx.Client(base_url=url) as http:
        video_id = create(http, receiver.url).json()["id"]
    store.cancel(video_id)
    assert redis.zcard(line_key(receiver_of(receiver.url))) == 1
    with serving(settings):
        receiver.next()
        wait_until(lambda: redis.exists(WEBHOOKS_KEY) == 0)


def test_this_network_is_out_of_bounds_unless_allowed(
    settings: Settings,
    redis: Redis,
    store: VideoStore,
    text_card: ModelCard,
    receiver: Receiver,
    quick: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    strict = settings.model_copy(update={"webhook_allow_private": False})
    with serving(strict) as url, httpx.Client(base_url=url) as http:
        for host in ("127.0.0.1", "[::1]", "localhost", "10.0.0.1", "[::ffff:127.0.0.1]", "169.254.169.254"):
            answer = create(http, f"http://{host}/hook")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook_url")
            assert "public address" in answer.json()["error"]["message"]
        # Another spelling of 127.0.0.1, which only resolving it tells.
        port = receiver.url.rpartition(":")[2]
        store.cancel(create(http, f"http://2130706433:{port}").json()["id"])
        wait_until(lambda: "webhook given up" in caplog.text)
    assert "resolves to 127.0.0.1, which is no public address" in caplog.text
    assert receiver.received.empty()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "http://",
        "http://user@example.com",
        "http://a b",
        "http://a#b",
        "http://a:99999/",
        "http://a:0",
        "http://[::1",
        "http://a\\b",
        "http://exämple.com",
        "javascript:alert(1)",
        "http://a/" + "x" * 2048,
    ],
)
def test_what_is_no_url_of_a_webhook_is_refused(http: httpx.Client, url: str) -> None:
    answer = create(http, url)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook_url")


def test_a_server_without_a_secret_sends_none_and_says_so(
    settings: Settings, redis: Redis, text_card: ModelCard
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(settings.model_copy(update={"webhook_secret": None})) as url, httpx.Client(base_url=url) as http:
        answer = create(http, "https://example.com/hook")
    assert answer.status_code == 400
    assert "FRAMEDIT_WEBHOOK_SECRET" in answer.json()["error"]["message"]


@pytest.mark.parametrize("secret", ["short", "whsec_" + "A" * 28, "whsec_not base64, whatever its length is"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="24 characters or more"):
        Settings(webhook_secret=secret)
