"""How long references live, in a folder and in a bucket: with their video, and no longer."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs import redis_keys
from jobs.access.api_keys import KeyLimits, KeyStore
from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.storage import janitor
from jobs.storage.artifact_bucket import Bucket
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.janitor import Janitor
from jobs.storage.store_mark import StoreMark
from jobs.videos.record import Timings, new_video_id
from jobs.videos.store import VideoStore
from tests.bucket import BucketServer, serving_bucket
from tests.server.references.test_requests import PROMPT, make_mp4, make_png
from tests.server.serving import serving
from tests.waiting import wait_for

LOCATION = "s3://videos/made"


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with serving_bucket(monkeypatch) as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        request.getfixturevalue("bucket_server")
        return LOCATION
    return str(tmp_path / "artifacts")


@pytest.fixture
def artifacts(location: str) -> ArtifactStore:
    return ArtifactStore(location)


@pytest.fixture
def http(location: str, redis: Redis, redis_url: str, text_card: ModelCard, tmp_path: Path) -> Iterator[httpx.Client]:
    announce(redis, text_card, "w1", ttl_seconds=600)
    settings = Settings(redis_url=redis_url, data_dir=tmp_path, artifacts=location, log_level="error")
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200, "the server to set up its store")
        yield client


@pytest.fixture
def sweeper(redis: Redis, artifacts: ArtifactStore) -> Janitor:
    return Janitor(redis, artifacts, StoreMark(redis))


Finish = Callable[[str], None]


@pytest.fixture
def finish(store: VideoStore, artifacts: ArtifactStore, tmp_path: Path) -> Finish:
    make_mp4(tmp_path / "made.mp4")

    def finish(video_id: str) -> None:
        assert store.start(video_id, "w1") is not None
        made = artifacts.write(video_id, "video", tmp_path / "made.mp4")
        assert store.complete(video_id, {"video": made}, Timings(), "w1")

    return finish


def create(http: httpx.Client) -> str:
    answer = http.post("/v1/videos", data=PROMPT, files={"input_reference": ("a.png", make_png(), "image/png")})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def has_reference(artifacts: ArtifactStore, video_id: str) -> bool:
    return artifacts.exists(video_id, "reference")


def test_a_reference_expires_with_its_video(
    http: httpx.Client, redis: Redis, artifacts: ArtifactStore, sweeper: Janitor, finish: Finish
) -> None:
    old, young, waiting = create(http), create(http), create(http)
    finish(old)
    finish(young)
    redis.zadd(redis_keys.EXPIRING, {old: time.time() - 1, young: time.time() + 60})
    sweeper.expire()
    assert [has_reference(artifacts, video_id) for video_id in (old, young, waiting)] == [False, True, True]
    assert http.get(f"/v1/videos/{old}/content").status_code == 410
    assert http.post(f"/v1/videos/{old}/remix", json={"prompt": "a star"}).status_code == 404


def test_a_failed_video_keeps_its_reference_until_it_expires(
    http: httpx.Client, redis: Redis, artifacts: ArtifactStore, sweeper: Janitor
) -> None:
    video_id = create(http)
    assert http.post(f"/v1/videos/{video_id}/cancel").json()["status"] == "failed"
    sweeper.expire()
    assert has_reference(artifacts, video_id)
    assert http.post(f"/v1/videos/{video_id}/remix", json={"prompt": "a star"}).status_code == 200
    redis.zadd(redis_keys.EXPIRING, {video_id: time.time() - 1})
    sweeper.expire()
    assert not has_reference(artifacts, video_id)


def test_a_remix_whose_reference_is_gone_says_so(http: httpx.Client, artifacts: ArtifactStore) -> None:
    video_id = create(http)
    artifacts.delete(video_id)
    answer = http.post(f"/v1/videos/{video_id}/remix", json={"seed": 1})
    assert answer.status_code == 410, answer.text
    assert f"the image or video that {video_id} starts from is not stored" in answer.json()["error"]["message"]


def test_a_reference_is_deleted_with_its_video(http: httpx.Client, artifacts: ArtifactStore) -> None:
    video_id = create(http)
    assert has_reference(artifacts, video_id)
    assert http.delete(f"/v1/videos/{video_id}").status_code == 200
    assert not has_reference(artifacts, video_id)


def test_what_a_killed_server_leaves_is_swept_and_nothing_else(
    http: httpx.Client,
    artifacts: ArtifactStore,
    sweeper: Janitor,
    finish: Finish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """References are stored before their records."""
    waiting, done, orphan = create(http), create(http), new_video_id(time.time())
    finish(done)
    (tmp_path / "reference").write_bytes(b"rgb")
    artifacts.write(orphan, "reference", tmp_path / "reference")
    sweeper.sweep()
    assert has_reference(artifacts, orphan)  # its record may come
    monkeypatch.setattr(janitor, "ORPHANED_FOR_SECONDS", 0)
    sweeper.sweep()
    assert [has_reference(artifacts, video_id) for video_id in (waiting, done, orphan)] == [True, True, False]


def test_a_request_that_is_refused_at_last_leaves_no_reference(
    http: httpx.Client, redis: Redis, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of a key are checked with the records, and the references are stored before."""
    _, token = KeyStore(redis).create(limits=KeyLimits(videos_in_flight=1))
    http.headers["Authorization"] = f"Bearer {token}"
    written: list[str] = []

    def write(self: ArtifactStore, *arguments: Any, original: Any = ArtifactStore.write) -> Any:
        written.append(arguments[0])
        return original(self, *arguments)

    monkeypatch.setattr(ArtifactStore, "write", write)
    first = create(http)
    answer = http.post("/v1/videos", data=PROMPT, files={"input_reference": ("a.png", make_png())})
    assert answer.status_code == 429, answer.text
    assert (len(written), list(artifacts.video_ids())) == (2, [first])


@pytest.mark.parametrize("location", ["bucket"], indirect=True)
def test_a_store_that_is_away_refuses_references_only(
    http: httpx.Client, redis: Redis, bucket_server: BucketServer, finish: Finish
) -> None:
    source = create(http)
    finish(source)
    bucket_server.stop()
    try:
        with_file = http.post("/v1/videos", data=PROMPT, files={"input_reference": ("a.png", make_png())})
        of_video = http.post("/v1/videos/edits", json={"video": {"id": source}, "prompt": "a star"})
        plain = http.post("/v1/videos", json=PROMPT)
    finally:
        bucket_server.start()
    for answer in (with_file, of_video):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
    assert plain.status_code == 200
    assert {video["id"] for video in http.get("/v1/videos").json()["data"]} == {source, plain.json()["id"]}


@pytest.mark.parametrize("location", ["bucket"], indirect=True)
def test_a_store_that_goes_away_while_a_video_is_read_answers_503(
    http: httpx.Client, bucket_server: BucketServer, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = create(http)
    finish(source)

    def open_then_stop(self: Bucket, name: str, original: Any = Bucket.open) -> Any:
        file = original(self, name)
        bucket_server.stop()
        return file

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "open", open_then_stop)
            answer = http.post("/v1/videos/extensions", json={"video": {"id": source}})
    finally:
        bucket_server.start()
    assert answer.status_code == 503, answer.text
    assert http.post("/v1/videos/extensions", json={"video": {"id": source}}).status_code == 200
