import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs import redis_keys
from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.storage import janitor
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from jobs.videos.record import Timings
from jobs.videos.store import VideoStore
from server.content import file_response
from server.content.range_header import ByteRange, requested_range
from tests.bucket import BucketServer, serving_bucket
from tests.server.serving import serving
from tests.waiting import wait_for

CONTENT = os.urandom(2_000_000)
LOCATION = "s3://videos/made"


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with serving_bucket(monkeypatch) as server:
        yield server


@pytest.fixture(params=["proxy"])
def http(
    request: pytest.FixtureRequest, bucket_server: BucketServer, redis: Redis, redis_url: str, tmp_path: Path
) -> Iterator[httpx.Client]:
    """A client of a server whose videos are in the bucket; the parameter is how they are delivered."""
    if (mark := ArtifactStore(LOCATION).mark()) is not None:  # the bucket outlives the database of a test
        redis.set(redis_keys.ARTIFACT_STORE, mark)
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


def test_the_server_proxies_files_and_ranges(http: httpx.Client, url: str) -> None:
    whole = http.get(url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"].startswith('inline; filename="a-star-')
    for byte_range, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=1500000-1500099", 1_500_000, 1_500_100),
        ("bytes=1999990-", 1_999_990, 2_000_000),
        ("bytes=-10", 1_999_990, 2_000_000),
        ("bytes=0-", 0, 2_000_000),
    ]:
        part = http.get(url, headers={"range": byte_range})
        assert (part.status_code, part.content) == (206, CONTENT[start:end]), byte_range
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/2000000"
        assert part.headers["content-length"] == str(end - start)


def test_ranges_that_cannot_be_served(http: httpx.Client, url: str) -> None:
    outside = http.get(url, headers={"range": "bytes=2000000-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */2000000")
    assert http.get(url, headers={"range": "lines=1-2"}).status_code == 200
    assert http.get(url, headers={"range": "bytes=0-1", "if-range": '"other"'}).content == CONTENT


def test_head_and_a_matching_etag(http: httpx.Client, url: str) -> None:
    head = http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2000000")
    etag = head.headers["etag"]
    assert http.get(url, headers={"if-none-match": etag}).status_code == 304


@pytest.mark.parametrize("http", ["redirect"], indirect=True)
def test_a_client_can_be_redirected_to_the_store(http: httpx.Client, url: str, bucket_server: BucketServer) -> None:
    answer = http.get(url)
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    target = answer.headers["location"]
    assert target.startswith(f"{bucket_server.url}/videos/made/video_")
    part = httpx.get(target, headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, CONTENT[5:10])


@pytest.mark.parametrize("http", ["proxy", "redirect"], indirect=True)
@pytest.mark.parametrize(("output_format", "media_type"), [("webm", "video/webm"), ("png", "application/zip")])
def test_a_file_of_another_format_has_its_type_and_name(
    http: httpx.Client, url: str, store: VideoStore, tmp_path: Path, output_format: str, media_type: str
) -> None:
    body = {"model": "tiny-text", "prompt": "a star", "output_format": output_format}
    video_id = http.post("/v1/videos", json=body).json()["id"]
    (tmp_path / "made").write_bytes(CONTENT[:1000])
    assert store.start(video_id, "w1") is not None
    kind = store.get(video_id).request.result_kind
    artifact = ArtifactStore(LOCATION).write(video_id, kind, tmp_path / "made")
    assert store.complete(video_id, {kind: artifact}, Timings(), "w1")
    answer = http.get(f"/v1/videos/{video_id}/content", follow_redirects=True)
    assert (answer.status_code, answer.content) == (200, CONTENT[:1000])
    assert answer.headers["content-type"] == media_type
    suffix = "zip" if output_format == "png" else output_format
    assert answer.headers["content-disposition"] == f'inline; filename="a-star-{video_id[-6:]}.{suffix}"'
    assert http.delete(f"/v1/videos/{video_id}").status_code == 200
    assert not ArtifactStore(LOCATION).exists(video_id, kind)


@pytest.mark.parametrize("http", ["redirect"], indirect=True)
def test_the_page_may_load_videos_from_the_store(http: httpx.Client, bucket_server: BucketServer) -> None:
    policy = http.get("/").headers["content-security-policy"]
    assert f"media-src 'self' blob: {bucket_server.url};" in policy


@pytest.mark.parametrize("http", ["proxy", "redirect"], indirect=True)
def test_a_removed_file_answers_410_and_an_unavailable_store_503(
    http: httpx.Client, url: str, bucket_server: BucketServer
) -> None:
    wait_for(lambda: http.get("/readyz").status_code == 200, "the server to set up its store", 30)
    ArtifactStore(LOCATION).delete(url.split("/")[3])
    assert http.get(url).status_code == 410
    bucket_server.stop()
    try:
        away = http.get(url)
        assert away.status_code == 503
        assert int(away.headers["retry-after"]) > 0
        assert "object store does not answer" in away.json()["error"]["message"]
        wait_for(lambda: http.get("/readyz").status_code == 503, "readiness to follow its store", 30)
    finally:
        bucket_server.start()


def test_an_object_that_vanishes_before_its_first_byte_answers_410(
    http: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_then_range(*args: Any) -> ByteRange | None:
        ArtifactStore(LOCATION).delete(url.split("/")[3])
        return requested_range(*args)

    monkeypatch.setattr(file_response, "requested_range", remove_then_range)
    assert http.get(url).status_code == 410


def test_a_deletion_while_the_store_is_away_is_completed_later(
    http: httpx.Client,
    url: str,
    bucket_server: BucketServer,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    video_id = url.split("/")[3]
    sweeper = janitor.Janitor(redis, ArtifactStore(LOCATION), StoreMark(redis))
    sweeper.sweep()  # the store now belongs to this database
    bucket_server.stop()
    try:
        answer = http.delete(f"/v1/videos/{video_id}")
    finally:
        bucket_server.start()
    assert (answer.status_code, answer.json()["deleted"]) == (200, True)
    assert http.get(f"/v1/videos/{video_id}").status_code == 404
    assert f"{video_id}: deleted, its files are removed later" in caplog.text
    monkeypatch.setattr(janitor, "ORPHANED_FOR_SECONDS", 0)
    sweeper.sweep()
    assert not ArtifactStore(LOCATION).exists(video_id)
