"""API keys over HTTP, with the official client where it has an error for the case."""

import json
import logging
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from redis import Redis

from jobs.access.api_keys import DEFAULT_SCOPES, KeyLimits, KeyStore, Scope
from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from tests.server.serving import serving

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

ASK = {"model": "tiny-text", "prompt": "a red circle"}


@pytest.fixture
def keys(redis: Redis) -> KeyStore:
    return KeyStore(redis)


@pytest.fixture
def caller(http: httpx.Client, keys: KeyStore) -> Iterator[Callable[..., httpx.Client]]:
    """Makes an HTTP client with a key of its own."""
    clients = []

    def make(*scopes: Scope, **limits: Any) -> httpx.Client:
        _, token = keys.create(scopes=scopes or DEFAULT_SCOPES, limits=KeyLimits(**limits))
        clients.append(httpx.Client(base_url=http.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=10))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@contextmanager
def openai_client(http: httpx.Client, token: str, max_retries: int = 0) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{http.base_url}/v1", api_key=token, max_retries=max_retries) as client:
        yield client


def routes_of(video_id: str) -> list[tuple[str, str]]:
    """Every route of one video."""
    video = f"/v1/videos/{video_id}"
    return [
        ("GET", video),
        ("GET", f"{video}/content"),
        ("HEAD", f"{video}/content"),
        ("GET", f"{video}/events"),
        ("POST", f"{video}/cancel"),
        ("POST", f"{video}/remix"),
        ("DELETE", video),
    ]


def call(http: httpx.Client, method: str, path: str) -> httpx.Response:
    body = {"prompt": "x"} if path.endswith("remix") else None
    with http.stream(method, path, json=body) as answer:
        if answer.is_error:  # an event stream would not end
            answer.read()
    return answer


def test_requests_need_a_key_once_one_exists(http: httpx.Client, keys: KeyStore) -> None:
    before = http.post("/v1/videos", json=ASK).json()["id"]
    key, token = keys.create()
    for method, path in [*routes_of(before), ("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/v1/models")]:
        answer = call(http, method, path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    error = http.get("/v1/videos").json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", "invalid_api_key", None)
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert http.get(path).status_code == 200
    keys.revoke(key.id)
    assert http.get("/v1/videos").status_code == 401
    assert http.get("/v1/videos", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_no_key_is_needed_again_once_keys_are_disabled(http: httpx.Client, keys: KeyStore) -> None:
    key, token = keys.create()
    made = http.post("/v1/videos", json=ASK, headers={"Authorization": f"Bearer {token}"}).json()["id"]
    keys.revoke(key.id)
    assert http.get(f"/v1/videos/{made}").status_code == 401
    keys.disable()
    assert http.get(f"/v1/videos/{made}").status_code == 200


def test_the_body_of_a_refused_request_is_not_parsed(http: httpx.Client, keys: KeyStore) -> None:
    keys.create()
    assert http.post("/v1/videos", json={"nonsense": 1}).status_code == 401
    assert http.post("/v1/videos", content=b"x" * 200_000).status_code == 401


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (("create",), {"POST"}),
        (("read",), {"GET", "HEAD"}),
        (("delete",), {"DELETE"}),
        (("admin",), {"GET", "HEAD", "POST", "DELETE"}),
    ],
)
def test_a_scope_permits_its_operations_only(
    caller: Callable[..., httpx.Client], scopes: tuple[Scope, ...], allowed: set[str]
) -> None:
    video_id = caller("create").post("/v1/videos", json=ASK).json()["id"]
    http = caller(*scopes)
    for method, path in [*routes_of(video_id), ("GET", "/v1/videos"), ("POST", "/v1/videos")]:
        answer = call(http, method, path)
        assert (answer.status_code == 403) == (method not in allowed), (path, answer.text)
    assert http.get("/v1/models").status_code == 200
    if "GET" not in allowed:
        assert http.get("/v1/videos").json()["error"] == {
            "message": f"this requires an API key with the scope read; this one has: {scopes[0]}",
            "type": "permission_error",
            "param": None,
            "code": "insufficient_scope",
        }


def test_a_key_uses_its_allowed_priorities_only(http: httpx.Client, keys: KeyStore) -> None:
    _, token = keys.create(priorities=["low", "normal"])
    headers = {"Authorization": f"Bearer {token}"}
    assert http.post("/v1/videos", json=ASK | {"priority": "low"}, headers=headers).status_code == 200
    refused = http.post("/v1/videos", json=ASK | {"priority": "high"}, headers=headers)
    assert refused.status_code == 403
    assert "priority is high; this API key allows normal, low" in refused.json()["error"]["message"]


def test_an_expired_key_is_refused_with_the_reason(http: httpx.Client, keys: KeyStore) -> None:
    _, token = keys.create(expires_in_seconds=-1)
    answer = http.get("/v1/videos", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert "this API key has expired" in answer.json()["error"]["message"]


def test_videos_of_other_keys_are_not_found(caller: Callable[..., httpx.Client], finish: Callable[..., None]) -> None:
    ann, bob, admin = caller(), caller(), caller("admin")
    video_id = ann.post("/v1/videos", json=ASK).json()["id"]
    finish(video_id, b"mp4")
    missing = "video_" + "0" * 32
    for method, path in routes_of(video_id):
        answer = call(bob, method, path)
        unknown = call(bob, method, path.replace(video_id, missing))
        assert answer.status_code == unknown.status_code == 404, path
        assert answer.text.replace(video_id, missing) == unknown.text
    assert bob.get("/v1/videos").json()["data"] == []
    assert [video["id"] for video in ann.get("/v1/videos").json()["data"]] == [video_id]
    assert [video["id"] for video in admin.get("/v1/videos").json()["data"]] == [video_id]
    assert admin.get(f"/v1/videos/{video_id}/content").content == b"mp4"
    assert ann.get(f"/v1/videos/{video_id}/content").content == b"mp4"
    assert ann.post(f"/v1/videos/{video_id}/remix", json={"prompt": "y"}).status_code == 200
    assert ann.delete(f"/v1/videos/{video_id}").status_code == 200


def test_a_cursor_of_another_key_s_video_reveals_nothing(caller: Callable[..., httpx.Client]) -> None:
    ann, bob = caller(), caller()
    ids = [ann.post("/v1/videos", json=ASK).json()["id"], bob.post("/v1/videos", json=ASK).json()["id"]]
    assert [video["id"] for video in ann.get("/v1/videos", params={"after": ids[1]}).json()["data"]] == [ids[0]]


def test_metrics_need_the_scope_admin_unless_opened(caller: Callable[..., httpx.Client], settings: Settings) -> None:
    reader, admin = caller("read"), caller("admin")
    assert reader.get("/metrics").status_code == 403
    assert admin.get("/metrics").status_code == 200
    assert httpx.get(f"{admin.base_url}/metrics").status_code == 401
    with serving(settings.model_copy(update={"metrics_without_key": True})) as url:
        assert httpx.get(f"{url}/metrics").status_code == 200


def test_limits_over_http(caller: Callable[..., httpx.Client], finish: Callable[..., None]) -> None:
    http = caller(videos_in_flight=2)
    videos = http.post("/v1/videos", json=ASK | {"n": 2}).json()["data"]
    for _ in range(2):
        answer = http.post("/v1/videos", json=ASK)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error"
    assert http.post(f"/v1/videos/{videos[0]['id']}/remix", json={"prompt": "y"}).status_code == 429
    finish(videos[0]["id"], b"mp4")
    assert http.post("/v1/videos", json=ASK).status_code == 200
    assert http.post("/v1/videos", json=ASK | {"n": 3}).json()["error"]["param"] == "n"

    costly = caller(cost_per_day=20_000)
    assert costly.post("/v1/videos", json=ASK).status_code == 200
    answer = costly.post("/v1/videos", json=ASK)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 24 * 3600


def test_requests_of_a_key_are_limited_per_minute(caller: Callable[..., httpx.Client], keys: KeyStore) -> None:
    http, other = caller(requests_per_minute=2), caller()
    assert [http.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
    assert 1 <= int(http.get("/v1/videos").headers["retry-after"]) <= 30
    assert other.get("/v1/models").status_code == 200
    # A wrong secret of a known key uses none of its requests.
    guess = f"fd-{keys.list()[0].id.removeprefix('key_')}-{'A' * 43}"
    assert http.get("/v1/models", headers={"Authorization": f"Bearer {guess}"}).status_code == 401


def test_the_official_client_raises_its_own_errors(http: httpx.Client, keys: KeyStore) -> None:
    with openai_client(http, "unused") as client:
        video_id = client.videos.create(**ASK).id  # no key is required while none exists
        _, reader_token = keys.create(scopes=["read"])
        with pytest.raises(openai.AuthenticationError, match="is unknown or was revoked"):
            client.videos.create(**ASK)
    with openai_client(http, reader_token) as client:
        with pytest.raises(openai.PermissionDeniedError, match="requires an API key with the scope create"):
            client.videos.create(**ASK)
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video_id)
    with openai_client(http, keys.create(limits=KeyLimits(videos_in_flight=1))[1]) as client:
        client.videos.create(**ASK)
        with pytest.raises(openai.RateLimitError, match="1 of 1 videos in flight") as caught:
            client.videos.create(**ASK)
        assert caught.value.code == "rate_limit_exceeded"


def test_the_official_client_waits_for_retry_after(
    http: httpx.Client, keys: KeyStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, token = keys.create(limits=KeyLimits(requests_per_minute=600))
    bucket = f"framedit:requests:{key.id}"
    redis.hset(bucket, mapping={"tokens": "-600", "at": redis.time()[0] * 1000})  # no request is accepted for a minute
    waits: list[float] = []
    with openai_client(http, token, max_retries=1) as client:
        told = client._calculate_retry_timeout

        def calculate(*args: Any, **kwargs: Any) -> float:
            waits.append(told(*args, **kwargs))
            redis.delete(bucket)  # the minute is over
            return 0

        monkeypatch.setattr(client, "_calculate_retry_timeout", calculate)
        assert client.models.list().data
    [seconds] = waits
    assert 8 < seconds <= 61, "the client's own backoff ends at 8 seconds"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
def test_a_server_on_a_network_refuses_requests_without_keys(settings: Settings, redis: Redis, host: str) -> None:
    """Also when Redis or its keys appear after the start. The test itself listens on loopback."""
    with serving(settings.model_copy(update={"host": host})) as url:
        answer = httpx.get(f"{url}/v1/videos")
        assert answer.status_code == 401
        assert "framedit keys create" in answer.json()["error"]["message"]
        _, token = KeyStore(redis).create()
        assert httpx.get(f"{url}/v1/videos", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_disabling_keys_does_not_open_a_server_on_a_network(settings: Settings, redis: Redis) -> None:
    key, token = KeyStore(redis).create()
    with serving(settings.model_copy(update={"host": "0.0.0.0"})) as url:
        with_key = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}/v1/videos", headers=with_key).status_code == 200
        KeyStore(redis).revoke(key.id)
        KeyStore(redis).disable()
        assert httpx.get(f"{url}/v1/videos", headers=with_key).status_code == 401
        assert httpx.get(f"{url}/v1/videos").status_code == 401


def test_a_server_on_a_network_can_allow_anonymous_use(settings: Settings, redis: Redis) -> None:
    with serving(settings.model_copy(update={"host": "0.0.0.0", "allow_anonymous": True})) as url:
        assert httpx.get(f"{url}/v1/videos").status_code == 200
        KeyStore(redis).create()
        assert httpx.get(f"{url}/v1/videos").status_code == 401


def test_a_repeated_idempotency_key_returns_the_same_videos(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "order 1"}
    first = http.post("/v1/videos", json=ASK, headers=headers)
    again = http.post("/v1/videos", json=dict(reversed(ASK.items())), headers=headers)
    assert again.status_code == 200
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = http.post("/v1/videos", json=ASK | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"
    assert len(http.get("/v1/videos").json()["data"]) == 1
    http.delete(f"/v1/videos/{first.json()['id']}")
    assert http.post("/v1/videos", json=ASK, headers=headers).status_code == 404


def test_idempotency_keys_work_for_forms_lists_and_remixes(http: httpx.Client) -> None:
    def twice(path: str, **body: Any) -> Any:
        first, again = (http.post(path, headers={"Idempotency-Key": path}, **body) for _ in range(2))
        assert first.status_code == 200
        assert again.json() == first.json()
        return first.json()

    # Each form has a boundary of its own.
    video_id = twice("/v1/videos", files={name: (None, value) for name, value in ASK.items()})["id"]
    twice(f"/v1/videos/{video_id}/remix", json={"prompt": "y"})
    many = {"Idempotency-Key": "many"}
    first, again = (http.post("/v1/videos", json=ASK | {"n": 3}, headers=many).json() for _ in range(2))
    assert first == again
    assert len(http.get("/v1/videos").json()["data"]) == 5


def test_a_repeated_request_is_answered_where_a_new_one_is_refused(
    caller: Callable[..., httpx.Client], redis: Redis
) -> None:
    http, headers = caller(videos_in_flight=1), {"Idempotency-Key": "1"}
    first = http.post("/v1/videos", json=ASK, headers=headers)
    assert http.post("/v1/videos", json=ASK).status_code == 429
    redis.delete("framedit:models")
    assert http.post("/v1/videos", json=ASK, headers=headers).json() == first.json()
    assert caller().post("/v1/videos", json=ASK, headers=headers).status_code == 404


def test_concurrent_requests_with_one_idempotency_key_make_one_video(http: httpx.Client) -> None:
    barrier, ids = threading.Barrier(8), []

    def post() -> None:
        barrier.wait()
        ids.append(http.post("/v1/videos", json=ASK, headers={"Idempotency-Key": "1"}).json()["id"])

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert set(ids) == {video["id"] for video in http.get("/v1/videos").json()["data"]}
    assert len(set(ids)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_an_invalid_idempotency_key_is_refused(http: httpx.Client, key: str) -> None:
    answer = http.post("/v1/videos", json=ASK, headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_allowed_origins_can_call_the_api(settings: Settings, redis: Redis, text_card: ModelCard) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    origins = "https://a.example, http://localhost:3000"
    with serving(settings.model_copy(update={"cors_origins": origins})) as url, httpx.Client(base_url=url) as http:
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization, content-type, idempotency-key"
        preflight = http.options("/v1/videos", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://a.example"
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        assert (
            "access-control-allow-origin" not in http.options("/v1/videos", headers=asked | {"Origin": "null"}).headers
        )
        KeyStore(redis).create()
        refused = http.get("/v1/videos", headers={"Origin": "http://localhost:3000"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "http://localhost:3000")
        assert "Retry-After" in refused.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in refused.headers


def test_without_the_setting_no_origin_is_allowed(http: httpx.Client) -> None:
    answer = http.get("/v1/videos", headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://a.example"},
        {"Origin": "null"},
        {"Host": "rebound.example:8000"},
        {"Host": "rebound.example:8000", "Origin": "http://rebound.example:8000"},
    ],
)
def test_without_keys_foreign_pages_are_refused(http: httpx.Client, keys: KeyStore, headers: dict[str, str]) -> None:
    """A form that a page sends needs no leave of CORS."""
    for method, path in (("POST", "/v1/videos"), ("GET", "/v1/videos"), ("GET", f"/v1/videos/video_{0:032x}")):
        answer = http.request(method, path, headers=headers, data=ASK if method == "POST" else None)
        assert answer.status_code == 403, path
        setting = "FRAMEDIT_CORS_ORIGINS" if "Host" not in headers else "FRAMEDIT_ALLOWED_HOSTS"
        assert setting in answer.json()["error"]["message"]
    assert http.get("/v1/videos").json()["data"] == []
    _, token = keys.create()
    assert http.get("/v1/videos", headers=headers | {"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("allow_anonymous", [False, True])
def test_anonymous_servers_refuse_foreign_pages_and_rebound_names(
    settings: Settings, redis: Redis, text_card: ModelCard, allow_anonymous: bool
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    host = "0.0.0.0" if allow_anonymous else "127.0.0.1"
    changes = {"host": host, "allow_anonymous": allow_anonymous, "allowed_hosts": "video.example, api"}
    with serving(settings.model_copy(update=changes)) as url, httpx.Client(base_url=url) as http:
        video_id = http.post("/v1/videos", json=ASK).json()["id"]
        for headers in (
            {"Origin": "https://a.example"},
            {"Host": "rebound.example", "Origin": "http://rebound.example"},
            {"Host": "rebound.example"},
            {"Host": "127.0.0.1.rebound.example"},
        ):
            for method, path in (("POST", "/v1/videos"), ("GET", "/v1/videos"), ("DELETE", f"/v1/videos/{video_id}")):
                answer = http.request(method, path, headers=headers, data=ASK if method == "POST" else None)
                assert answer.status_code == 403, (headers, path)
        assert [video["id"] for video in http.get("/v1/videos").json()["data"]] == [video_id]
        for host in ("video.example", "VIDEO.example:8000", "api", "localhost:1", "[::1]:8000", "127.0.0.9"):
            assert http.get("/v1/videos", headers={"Host": host}).status_code == 200, host
        own = {"Host": "video.example:8000", "Origin": "https://video.example:8000"}
        assert http.post("/v1/videos", json=ASK, headers=own).status_code == 200


def test_a_star_allows_every_host(settings: Settings, redis: Redis) -> None:
    with serving(settings.model_copy(update={"allowed_hosts": "*"})) as url:
        assert httpx.get(f"{url}/v1/videos", headers={"Host": "any.example"}).status_code == 200


def test_the_server_s_own_page_is_served(http: httpx.Client) -> None:
    own = str(http.base_url).rstrip("/")
    assert http.post("/v1/videos", json=ASK, headers={"Origin": own}).status_code == 200
    localhost = own.replace("127.0.0.1", "localhost")
    headers = {"Host": localhost.removeprefix("http://"), "Origin": localhost}
    assert http.get("/v1/videos", headers=headers).status_code == 200


def test_unknown_keys_are_limited_by_address(settings: Settings, redis: Redis) -> None:
    _, token = KeyStore(redis).create()
    with serving(settings.model_copy(update={"failed_keys_per_minute": 3})) as url, httpx.Client(base_url=url) as http:
        guess = {"Authorization": f"Bearer fd-{'0' * 12}-{'A' * 43}"}
        assert [http.get("/v1/videos", headers=guess).status_code for _ in range(4)] == [401, 401, 401, 429]
        assert int(http.get("/v1/videos", headers=guess).headers["retry-after"]) >= 1
        # A proxy gives all clients one address: those with a key are served.
        assert http.get("/v1/videos", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_anonymous_requests_are_limited_by_address(settings: Settings, redis: Redis) -> None:
    limited = settings.model_copy(update={"anonymous_requests_per_minute": 3})
    with serving(limited) as url, httpx.Client(base_url=url) as http:
        assert [http.get("/v1/videos").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert http.get("/livez").status_code == 200
        _, token = KeyStore(redis).create()
        assert http.get("/v1/videos", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_changes_and_refusals_are_in_the_audit_log(
    settings: Settings, redis: Redis, text_card: ModelCard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    caplog.set_level(logging.INFO, "server.middleware.request_log")
    key, token = KeyStore(redis).create(scopes=["read"])
    maker, other = KeyStore(redis).create()
    path = tmp_path / "audit.jsonl"
    with serving(settings.model_copy(update={"audit_log": path})) as url, httpx.Client(base_url=url) as http:
        reader, creator = ({"Authorization": f"Bearer {value}"} for value in (token, other))
        assert http.get("/v1/videos", headers=reader).status_code == 200
        assert http.get("/v1/videos").status_code == 401
        assert http.post("/v1/videos", json=ASK, headers=reader).status_code == 403
        video_id = http.post("/v1/videos", json=ASK, headers=creator).json()["id"]
        assert http.delete(f"/v1/videos/{video_id}", headers=creator).status_code == 200
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["key"], line["method"], line["status"]) for line in lines] == [
        (None, "GET", 401),
        (key.id, "POST", 403),
        (maker.id, "POST", 200),
        (maker.id, "DELETE", 200),
    ]
    assert lines[-1]["path"] == f"/v1/videos/{video_id}"
    assert all(line["address"] == "127.0.0.1" and line["request_id"] and line["time"] > 0 for line in lines)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"POST /v1/videos 403, API key {key.id}" in caplog.text
    assert "GET /v1/videos 401" in caplog.text
