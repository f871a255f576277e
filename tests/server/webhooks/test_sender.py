"""Webhooks as their receiver sees them: a real HTTP server, and the official client, which checks the signature."""

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import SecretStr
from redis import Redis

from jobs import redis_keys
from jobs.access.api_keys import KeyStore
from jobs.access.webhook_secrets import WebhookSecrets
from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.videos import webhook_schedule
from jobs.videos.store import VideoStore
from jobs.videos.webhook_schedule import Due, Webhooks, receiver_of
from server.http.ssrf_guard import PublicNetwork
from server.webhooks import sender as webhook_sender
from server.webhooks.sender import WebhookSender
from tests.jobs.making import make_record
from tests.server.serving import serving

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
    monkeypatch.setattr(webhook_sender, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(webhook_schedule, "RETRY_SECONDS", (0, 0, 0))


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


def test_the_official_client_shows_the_error_message(
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
    wait_until(lambda: redis.exists(redis_keys.WEBHOOKS) == 0)


@pytest.mark.parametrize("refusal", [500, 404, 302])
def test_an_undelivered_webhook_is_sent_again_as_the_same_event(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, refusal: int
) -> None:
    receiver.statuses = [refusal, refusal, 204]
    store.cancel(create(http, receiver.url).json()["id"])
    ids = {receiver.next()[0]["webhook-id"] for _ in range(3)}
    assert len(ids) == 1
    wait_until(lambda: redis.exists(redis_keys.WEBHOOKS) == 0)
    assert receiver.received.empty(), "a redirect was followed, or it was sent once too often"


def test_a_receiver_that_never_listens_is_given_up(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [503]
    store.cancel(create(http, receiver.url).json()["id"])
    wait_until(lambda: "webhook given up after attempt 4: status 503" in caplog.text)
    wait_until(lambda: redis.exists(redis_keys.WEBHOOKS) == 0)
    assert receiver.received.qsize() == 4


def test_each_video_has_its_webhook_and_a_deleted_one_has_none(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [video["id"] for video in create(http, receiver.url, n=3).json()["data"]]
    with redis.pipeline() as pipe:  # nobody sends in between
        pipe.zadd(redis_keys.WEBHOOKS, {receiver_of(receiver.url): 0})
        pipe.zadd(redis_keys.webhooks_to(receiver_of(receiver.url)), {ids[0]: 0})
        pipe.delete(f"framedit:video:{ids[0]}")
        pipe.execute()
    for video_id in ids[1:]:
        store.cancel(video_id)
    told = {
        OpenAI(api_key="unused").webhooks.unwrap(b, h, secret=SECRET).to_dict()["data"]["id"]  # type: ignore[index]
        for h, b in (receiver.next(), receiver.next())
    }
    assert told == set(ids[1:])
    wait_until(lambda: redis.exists(redis_keys.WEBHOOKS) == 0)


def test_a_slow_receiver_delays_no_other_and_gets_all_its_webhooks(
    http: httpx.Client, redis: Redis, store: VideoStore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "_SEND_TIMEOUT_SECONDS", 600)  # slow, not given up
    limit = webhook_sender._MAX_SENDING_PER_RECEIVER
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
        wait_until(lambda: redis.exists(redis_keys.WEBHOOKS) == 0)
    assert len(ids) == 50
    assert slow.received.empty(), "one was sent twice"


def test_a_webhook_outlives_the_server(
    settings: Settings, redis: Redis, store: VideoStore, text_card: ModelCard, receiver: Receiver, quick: None
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(settings) as url, httpx.Client(base_url=url) as http:
        video_id = create(http, receiver.url).json()["id"]
    store.cancel(video_id)
    assert redis.zcard(redis_keys.webhooks_to(receiver_of(receiver.url))) == 1
    with serving(settings):
        receiver.next()
        wait_until(lambda: redis.exists(redis_keys.WEBHOOKS) == 0)


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
    assert "resolves to 127.0.0.1, which is not a public address" in caplog.text
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
def test_invalid_webhook_urls_are_refused(http: httpx.Client, url: str) -> None:
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


@pytest.mark.parametrize("steps", range(5))
def test_a_sender_stops_at_once_when_a_webhook_ends(redis: Redis, store: VideoStore, steps: int) -> None:
    """Stop the sender some steps of the event loop after an attempt has ended: at one of them the cancellation was
    lost, and the server ignored SIGTERM."""
    record = make_record(webhook_url="http://127.0.0.1:1/")
    store.create(record)
    store.cancel(record.id)

    async def run_and_stop() -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()

        def wait_for_end(num_tasks: int) -> None:
            if len(asyncio.all_tasks()) < num_tasks:
                count_down(steps)
            else:
                loop.call_soon(wait_for_end, num_tasks)

        def count_down(left: int) -> None:
            stopping.set() if left == 0 else loop.call_soon(count_down, left - 1)

        class Observed(Webhooks):
            def failed(self, due: Due) -> bool:
                loop.call_soon_threadsafe(lambda: wait_for_end(len(asyncio.all_tasks())))
                return super().failed(due)

        # The network refuses the address at once.
        sender = WebhookSender(Observed(redis), store, WebhookSecrets(SECRET), PublicNetwork())
        async with asyncio.timeout(20):
            async with sender.running():
                await stopping.wait()
                started = loop.time()
            assert loop.time() - started < 5

    asyncio.run(run_and_stop())


def test_each_key_has_a_secret_of_its_own_and_rotation_has_two(
    settings: Settings, redis: Redis, store: VideoStore, text_card: ModelCard, receiver: Receiver, quick: None
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    (ann, token), (bob, _) = KeyStore(redis).create(), KeyStore(redis).create()
    new = "whsec_" + base64.b64encode(b"a new secret of the server").decode()
    rotated = settings.model_copy(
        update={"webhook_secret": SecretStr(new), "webhook_secret_previous": SecretStr(SECRET)}
    )
    with serving(rotated) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as http:
        store.cancel(create(http, receiver.url).json()["id"])
        headers, body = receiver.next()

    def accepts(secret: str) -> bool:
        client = OpenAI(api_key="unused", webhook_secret=secret)
        try:
            client.webhooks.unwrap(body, headers)
        except openai.InvalidWebhookSignatureError:
            return False
        return True

    secrets = WebhookSecrets(new, SECRET)
    assert [accepts(secret) for secret in secrets.shown(ann.id)] == [True, True]
    assert [accepts(secret) for secret in (*secrets.shown(bob.id), new, SECRET)] == [False] * 4


def test_an_owner_with_many_receivers_delays_no_other(
    settings: Settings, store: VideoStore, receiver: Receiver, quick: None
) -> None:
    def end(owner: str, url: str) -> None:
        record = make_record(webhook_url=url).model_copy(update={"owner": owner})
        store.create(record)
        store.cancel(record.id)

    with ExitStack() as stack:
        for number in range(1, 151):  # receivers that accept connections and never answer
            silent = stack.enter_context(socket.create_server((f"127.0.0.{number}", 0)))
            end("key_a", f"http://127.0.0.{number}:{silent.getsockname()[1]}/")
        with serving(settings):
            time.sleep(1)
            started = time.monotonic()
            end("key_b", receiver.url)
            receiver.next()
            assert time.monotonic() - started < 8
