"""A Redis that has reached its memory limit: new videos are refused, those that exist end, and deleting goes on."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from cli.processes.embedded_redis import EmbeddedRedis
from jobs.access.api_keys import KeyLimits, KeyStore
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.queue.claimed_videos import ClaimedVideos
from jobs.settings import Settings
from jobs.videos.record import Artifact, Timings
from jobs.videos.store import VideoStore
from tests.server.serving import serving

ASK = {"model": "tiny-text", "prompt": "\U0001f534" * 100, "metadata": {"\U0001f534": "\U0001f535" * 500}}
LIMIT = 12 << 20


@pytest.fixture
def own_redis(tmp_path: Path, text_card: ModelCard) -> Iterator[tuple[str, Redis]]:
    """A Redis of this test alone, with a small memory limit."""
    server = EmbeddedRedis(tmp_path / "redis")
    try:
        url = server.start()
        with connect(url) as redis:
            redis.config_set("maxmemory", LIMIT)
            announce(redis, text_card, "w1", ttl_seconds=600)
            yield url, redis
    finally:
        server.stop()


def test_new_videos_are_refused_before_redis_is_full(own_redis: tuple[str, Redis], tmp_path: Path) -> None:
    url, redis = own_redis
    settings = Settings(redis_url=url, data_dir=tmp_path, artifacts=tmp_path / "artifacts")
    with serving(settings) as base, httpx.Client(base_url=base, timeout=30) as http:
        accepted: list[str] = []
        for _ in range(2000):
            answer = http.post("/v1/videos", json=ASK | {"n": 10})
            if answer.status_code != 200:
                break
            accepted += [video["id"] for video in answer.json()["data"]]
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "overloaded"
        assert int(answer.headers["retry-after"]) >= 1
        assert redis.info("memory")["used_memory"] < LIMIT
        assert len(accepted) > 200
        # Everything that was accepted is there, and the work on it can end.
        assert set(VideoStore(redis).unfinished_ids()) == set(accepted)
        end(redis, accepted[0])
        assert http.get(f"/v1/videos/{accepted[0]}").json()["status"] == "completed"


def end(redis: Redis, video_id: str) -> None:
    videos = ClaimedVideos(redis)
    assert videos.start(video_id, "w1") is not None
    assert videos.progress(video_id, 1, 20, "w1")
    assert videos.keep_snapshot(video_id, b"x" * 1000, "w1")
    assert videos.complete(video_id, {"video": Artifact(num_bytes=1, sha256="0" * 64)}, Timings(), "w1")


def fill(redis: Redis) -> None:
    for number in range(10_000):
        redis.set(f"other:{number}", b"x" * 10_000)


def test_work_in_progress_ends_while_redis_is_full(own_redis: tuple[str, Redis], tmp_path: Path) -> None:
    url, redis = own_redis
    settings = Settings(redis_url=url, data_dir=tmp_path, artifacts=tmp_path / "artifacts")
    _, token = KeyStore(redis).create(limits=KeyLimits(requests_per_minute=600))
    with serving(settings) as base:
        http = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        ids = [video["id"] for video in http.post("/v1/videos", json=ASK | {"n": 10}).json()["data"]]
        with pytest.raises(OutOfMemoryError):
            fill(redis)
        assert http.post("/v1/videos", json=ASK).status_code == 503
        end(redis, ids[0])
        assert http.get(f"/v1/videos/{ids[0]}").json()["status"] == "completed"
        assert http.post(f"/v1/videos/{ids[1]}/cancel").json()["status"] == "failed"
        for video_id in ids:
            assert http.delete(f"/v1/videos/{video_id}").status_code == 200
        assert http.get("/v1/videos").json()["data"] == []
        http.close()


def test_stored_videos_of_a_key_are_limited(http: httpx.Client, redis: Redis, settings: Settings) -> None:
    _, token = KeyStore(redis).create(limits=KeyLimits(videos_kept=3))
    headers = {"Authorization": f"Bearer {token}"}
    body = {"model": "tiny-text", "prompt": "x"}
    ids = [http.post("/v1/videos", json=body, headers=headers).json()["id"] for _ in range(3)]
    for video_id in ids:
        http.post(f"/v1/videos/{video_id}/cancel", headers=headers)
    refused = http.post("/v1/videos", json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    http.delete(f"/v1/videos/{ids[0]}", headers=headers)
    assert http.post("/v1/videos", json=body, headers=headers).status_code == 200


def test_stored_videos_of_all_keys_are_limited(http: httpx.Client, redis: Redis, settings: Settings) -> None:
    with serving(settings.model_copy(update={"max_kept_videos": 2})) as url:
        body = {"model": "tiny-text", "prompt": "x"}
        assert httpx.post(f"{url}/v1/videos", json=body | {"n": 2}).status_code == 200
        assert httpx.post(f"{url}/v1/videos", json=body).status_code == 503


def test_metadata_is_limited_in_bytes_and_stored_as_utf_8(http: httpx.Client, redis: Redis) -> None:
    body = {"model": "tiny-text", "prompt": "x"}
    largest = {f"{number:064}": "v" * 512 for number in range(16)}
    assert http.post("/v1/videos", json=body | {"metadata": largest}).status_code == 200
    emoji = {str(number): "\U0001f534" * 512 for number in range(16)}
    refused = http.post("/v1/videos", json=body | {"metadata": emoji})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "metadata")
    video_id = http.post("/v1/videos", json=ASK).json()["id"]
    assert redis.hstrlen(f"framedit:video:{video_id}", "request") < 4 * 700 + 1000
