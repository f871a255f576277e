"""Usage and quotas over HTTP."""

import csv
import io
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from redis import Redis

from jobs.access.api_keys import DEFAULT_SCOPES, KeyLimits, KeyStore, Scope

ASK = {"model": "tiny-text", "prompt": "a red circle"}
LIMITS = KeyLimits(requests_per_minute=10, videos_in_flight=5, videos_kept=8, cost_per_day=10**9)

Caller = Callable[..., tuple[str, httpx.Client]]


@pytest.fixture
def caller(http: httpx.Client, redis: Redis) -> Iterator[Caller]:
    """Makes a key, and a client that uses it."""
    clients: list[httpx.Client] = []

    def make(*scopes: Scope, limits: KeyLimits | None = None) -> tuple[str, httpx.Client]:
        key, token = KeyStore(redis).create(scopes=scopes or DEFAULT_SCOPES, limits=limits)
        clients.append(httpx.Client(base_url=http.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=10))
        return key.id, clients[-1]

    yield make
    for client in clients:
        client.close()


def test_a_key_sees_its_quotas_and_its_days(caller: Caller) -> None:
    key, http = caller(limits=LIMITS)
    _, others = caller()
    others.post("/v1/videos", json=ASK)
    videos = http.post("/v1/videos", json=ASK | {"n": 3}).json()["data"]
    http.post(f"/v1/videos/{videos[0]['id']}/cancel")
    usage = http.get("/v1/usage").json()
    [day] = usage["days"]
    assert (usage["object"], usage["key"]) == ("usage", key)
    assert (day["date"], day["key"], day["videos"]) == (time.strftime("%Y-%m-%d", time.gmtime()), key, 3)
    assert day["cost"] > 0
    assert usage["quotas"] == {
        "requests_per_minute": {"limit": 10, "used": 3, "remaining": 7},
        "videos_in_flight": {"limit": 5, "used": 2, "remaining": 3},
        "videos_kept": {"limit": 8, "used": 3, "remaining": 5},
        "cost_per_day": {"limit": 10**9, "used": day["cost"], "remaining": 10**9 - day["cost"]},
    }
    assert http.get("/v1/usage", params={"days": 0}).status_code == 400


def test_admin_sees_the_days_of_all_keys(caller: Caller) -> None:
    (ann, ann_http), (ben, ben_http), (_, admin) = caller(), caller(), caller("admin")
    ann_http.post("/v1/videos", json=ASK)
    ben_http.post("/v1/videos", json=ASK | {"n": 2})
    rows = admin.get("/v1/usage").json()["days"]
    assert {row["key"]: row["videos"] for row in rows} == {ann: 1, ben: 2}
    table = admin.get("/v1/usage", params={"format": "csv"})
    assert table.headers["content-type"].startswith("text/csv")
    parsed = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["key"] for row in parsed] == sorted([ann, ben])
    assert list(parsed[0]) == ["date", "key", "videos", "cost"]


def test_a_refused_request_is_not_counted_as_usage(caller: Caller) -> None:
    _, http = caller(limits=KeyLimits(videos_in_flight=1))
    assert http.post("/v1/videos", json=ASK).status_code == 200
    assert http.post("/v1/videos", json=ASK).status_code == 429
    usage = http.get("/v1/usage").json()
    assert [row["videos"] for row in usage["days"]] == [1]
    assert usage["quotas"]["requests_per_minute"] == {"limit": None, "used": None, "remaining": None}


def test_without_keys_there_are_no_quotas(http: httpx.Client) -> None:
    http.post("/v1/videos", json=ASK)
    usage = http.get("/v1/usage").json()
    assert (usage["key"], usage["quotas"]) == (None, None)
    assert [row["key"] for row in usage["days"]] == ["anonymous"]


def test_responses_carry_the_rate_limit(caller: Caller) -> None:
    _, http = caller(limits=KeyLimits(requests_per_minute=2))
    answers = [http.get("/v1/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-limit"] for answer in answers] == ["2", "2", "2"]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert all(0 < int(answer.headers["ratelimit-reset"]) <= 60 for answer in answers)
    _, unlimited = caller()
    assert "ratelimit-limit" not in unlimited.get("/v1/models").headers
