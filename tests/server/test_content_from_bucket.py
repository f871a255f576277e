import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.artifacts import ArtifactStore
from jobs.cards import ModelCard, announce
from jobs.records import Timings
from jobs.settings import Settings
from jobs.store import VideoStore

from ..bucket import BucketServer, serving_bucket
from .serving import serving

CONTENT = os.urandom(2_000_000)
LOCATION = "s3://videos/made"


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with serving_bucket(monkeypatch) as server:
        yield server


@pytest.fixture(params=["proxy"])
def http(
    request: pytest.FixtureRequest, bucket_server: BucketServer, redis_url: str, tmp_path: Path
) -> Iterator[httpx.Client]:
    """A client of a server whose videos are in the bucket; the parameter is how they are delivered."""
    settings = Settings(
        redis_url=redis_url, data_dir=tmp_path, artifacts=LOCATION, artifact_delivery=request.param, log_level="error"
    )
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def url(http: httpx.Client, redis: Redis, store: VideoStore, text_card: ModelCard, tmp_path: Path) -> str:
    """Of the content of a finished video."""
    announce(redis, text_card, "w1", ttl_seconds=600)
    video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "a star"}).json()["id"]
    source = tmp_path / "made.mp4"
    source.write_bytes(CONTENT)
    assert store.start(video_id, "w1") is not None
    artifact = ArtifactStore(LOCATION).write(video_id, "video", source)
    assert store.complete(video_id, {"video": artifact}, Timings(), "w1")
    return f"/v1/videos/{video_id}/content"


def test_the_whole_file_and_parts_of_it_go_through_the_server(http: httpx.Client, url: str) -> None:
    whole = http.get(url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"].startswith('inline; filename="a-star-')
    for asked, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=1500000-1500099", 1_500_000, 1_500_100),
        ("bytes=1999990-", 1_999_990, 2_000_000),
        ("bytes=-10", 1_999_990, 2_000_000),
        ("bytes=0-", 0, 2_000_000),
    ]:
        part = http.get(url, headers={"range": asked})
        assert (part.status_code, part.content) == (206, CONTENT[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/2000000"
        assert part.headers["content-length"] == str(end - start)


def test_what_is_no_part_of_the_file(http: httpx.Client, url: str) -> None:
    outside = http.get(url, headers={"range": "bytes=2000000-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */2000000")
    assert http.get(url, headers={"range": "lines=1-2"}).status_code == 200
    assert http.get(url, headers={"range": "bytes=0-1", "if-range": '"other"'}).content == CONTENT


def test_head_and_a_client_that_has_the_file(http: httpx.Client, url: str) -> None:
    head = http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2000000")
    etag = head.headers["etag"]
    assert http.get(url, headers={"if-none-match": etag}).status_code == 304


@pytest.mark.parametrize("http", ["redirect"], indirect=True)
def test_a_client_can_be_sent_to_the_store(http: httpx.Client, url: str, bucket_server: BucketServer) -> None:
    answer = http.get(url)
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    target = answer.headers["location"]
    assert target.startswith(f"{bucket_server.url}/videos/made/video_")
    part = httpx.get(target, headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, CONTENT[5:10])


@pytest.mark.parametrize("http", ["redirect"], indirect=True)
def test_the_page_may_show_what_is_in_the_store(http: httpx.Client, bucket_server: BucketServer) -> None:
    policy = http.get("/").headers["content-security-policy"]
    assert f"media-src 'self' blob: {bucket_server.url};" in policy


@pytest.mark.parametrize("http", ["proxy", "redirect"], indirect=True)
def test_a_file_that_was_removed_and_a_store_that_is_away(
    http: httpx.Client, url: str, bucket_server: BucketServer
) -> None:
    assert http.get("/readyz").status_code == 200
    ArtifactStore(LOCATION).delete(url.split("/")[3])
    assert http.get(url).status_code == 410
    bucket_server.stop()
    try:
        away = http.get(url)
        assert away.status_code == 503
        assert int(away.headers["retry-after"]) > 0
        assert "object store does not answer" in away.json()["error"]["message"]
        assert http.get("/readyz").status_code == 503
    finally:
        bucket_server.start()
