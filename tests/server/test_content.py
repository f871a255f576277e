import errno
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from jobs.videos.record import Timings
from jobs.videos.store import VideoStore
from server.content import file_response
from server.content.range_header import ByteRange, requested_range
from tests.jobs.every_role import EveryRole
from tests.server.serving import serving
from tests.waiting import wait_for

CONTENT = os.urandom(200_000)


@pytest.fixture
def video_id(http: httpx.Client) -> str:
    answer = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "A red circle, moving right!"})
    return str(answer.json()["id"])


@pytest.fixture
def url(video_id: str, finish: Callable[[str, bytes], None]) -> str:
    """Of the content of a finished video."""
    finish(video_id, CONTENT)
    return f"/v1/videos/{video_id}/content"


def test_the_whole_file(http: httpx.Client, url: str, video_id: str) -> None:
    answer = http.get(url, params={"variant": "video"})
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    name = f'inline; filename="a-red-circle-moving-right-{video_id[-6:]}.mp4"'
    assert answer.headers["content-disposition"] == name


def test_head_has_the_headers_of_get(http: httpx.Client, url: str) -> None:
    head, get = http.head(url), http.get(url)
    assert head.status_code == 200
    assert head.content == b""
    assert http.head(url, headers={"range": "bytes=0-1"}).headers["content-length"] == "200000"
    for name in ("content-length", "etag", "content-type", "accept-ranges", "content-disposition"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("byte_range", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=199990-", 199_990, 200_000),
        ("bytes=-10", 199_990, 200_000),
        ("bytes=-999999", 0, 200_000),
        ("bytes=100-999999", 100, 200_000),
        ("bytes=0-", 0, 200_000),
    ],
)
def test_a_range_of_the_file(http: httpx.Client, url: str, byte_range: str, start: int, end: int) -> None:
    answer = http.get(url, headers={"range": byte_range})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/200000"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("byte_range", ["bytes=200000-", "bytes=300000-300001", "bytes=-0"])
def test_a_range_outside_the_file(http: httpx.Client, url: str, byte_range: str) -> None:
    answer = http.get(url, headers={"range": byte_range})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */200000"
    assert "200000 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "byte_range",
    ["bytes=5-2", "bytes=-", "bytes=0-1,5-6", "bytes", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 5000 + "-"],
)
def test_a_malformed_range_is_ignored(http: httpx.Client, url: str, byte_range: str) -> None:
    answer = http.get(url, headers={"range": byte_range})
    assert (answer.status_code, len(answer.content)) == (200, 200_000)


def test_a_matching_etag_answers_304(http: httpx.Client, url: str) -> None:
    etag = http.get(url).headers["etag"]
    for held in (etag, f'"other", W/{etag}', "*"):
        answer = http.get(url, headers={"if-none-match": held, "range": "bytes=0-1"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert http.get(url, headers={"if-none-match": '"other"'}).status_code == 200
    assert http.get(url, headers={"if-range": etag, "range": "bytes=0-1"}).status_code == 206
    for byte_range in ("bytes=0-1", "bytes=200000-"):
        assert http.get(url, headers={"if-range": '"other"', "range": byte_range}).content == CONTENT


def test_a_video_that_is_not_ready(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    answer = http.get(f"/v1/videos/{video_id}/content")
    assert answer.status_code == 409
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "video_not_ready"


def test_a_failed_video_answers_its_reason(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.fail(video_id, "out_of_memory", "the device has too little memory")
    answer = http.get(f"/v1/videos/{video_id}/content")
    assert answer.status_code == 404
    assert "the device has too little memory" in answer.json()["error"]["message"]


def test_a_video_that_expired(http: httpx.Client, redis: Redis, url: str, video_id: str) -> None:
    assert http.get(url).status_code == 200
    redis.hset(f"framedit:video:{video_id}", "expires_at", "1700000000.0")
    answer = http.get(url)
    assert answer.status_code == 410
    assert http.get(f"/v1/videos/{video_id}").json()["expires_at"] == 1_700_000_000


def test_an_expired_video_answers_410_for_a_day_then_404(
    http: httpx.Client, redis: Redis, store: VideoStore, url: str, video_id: str
) -> None:
    store.remove(store.get(video_id))
    answer = http.get(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "video_expired")
    assert http.get(f"/v1/videos/{video_id}").status_code == 404
    assert http.get("/v1/videos").json()["data"] == []
    redis.delete(f"framedit:gone:{video_id}")  # a day has passed
    assert http.get(url).status_code == 404


def test_the_server_removes_expired_videos(
    http: httpx.Client, redis: Redis, settings: Settings, url: str, video_id: str
) -> None:
    redis.zadd("framedit:videos:expiring", {video_id: 1})
    redis.delete("framedit:janitor:expire")
    deadline = time.monotonic() + 60
    while (settings.artifacts / video_id).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert http.get(f"/v1/videos/{video_id}").status_code == 404
    assert not (settings.artifacts / video_id).exists()


def test_a_video_whose_file_was_removed(http: httpx.Client, settings: Settings, url: str, video_id: str) -> None:
    (settings.artifacts / video_id / "video.mp4").unlink()
    answer = http.get(url)
    assert answer.status_code == 410
    assert str(settings.artifacts) not in answer.text


def test_an_unknown_variant(http: httpx.Client, url: str) -> None:
    answer = http.get(url, params={"variant": "audio"})
    assert answer.status_code == 400
    message = "variant is 'audio'; it should be 'video', 'frames', 'thumbnail' or 'spritesheet'"
    assert answer.json()["error"]["message"] == message
    assert answer.json()["error"]["param"] == "variant"


@pytest.mark.parametrize(
    ("variant", "media_type", "ending"), [("thumbnail", "image/webp", "webp"), ("spritesheet", "image/jpeg", "jpg")]
)
def test_thumbnail_and_spritesheet(
    http: httpx.Client, url: str, video_id: str, variant: str, media_type: str, ending: str
) -> None:
    answer = http.get(url, params={"variant": variant})
    assert answer.content == f"the {variant} of ".encode() + CONTENT[:10]
    assert answer.headers["content-type"] == media_type
    assert answer.headers["etag"] != http.get(url).headers["etag"]
    assert answer.headers["content-disposition"].endswith(f'-{video_id[-6:]}.{ending}"')


def test_one_frame_is_a_png(
    http: httpx.Client, redis: Redis, text_card: ModelCard, finish: Callable[[str, bytes], None]
) -> None:
    announce(redis, text_card.model_copy(update={"id": "images", "min_frames": 1}), "w1", ttl_seconds=600)
    body = {"model": "images", "prompt": "a red circle", "num_frames": 1}
    video_id = http.post("/v1/videos", json=body).json()["id"]
    finish(video_id, b"a picture")
    answer = http.get(f"/v1/videos/{video_id}/content")
    assert (answer.content, answer.headers["content-type"]) == (b"a picture", "image/png")
    assert answer.headers["content-disposition"] == f'inline; filename="a-red-circle-{video_id[-6:]}.png"'
    assert http.get(f"/v1/videos/{video_id}/content?variant=thumbnail").headers["content-type"] == "image/webp"
    assert http.delete(f"/v1/videos/{video_id}").status_code == 200


def test_a_prompt_in_another_script_names_the_file(http: httpx.Client, finish: Callable[[str, bytes], None]) -> None:
    video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "красный круг / .."}).json()["id"]
    finish(video_id, b"mp4")
    disposition = http.get(f"/v1/videos/{video_id}/content").headers["content-disposition"]
    assert disposition.startswith("inline; filename*=utf-8''%D0%BA")
    assert disposition.endswith(f"{video_id[-6:]}.mp4")


def test_a_deletion_does_not_truncate_a_download(
    http: httpx.Client, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_then_range(*args: Any) -> ByteRange | None:
        assert http.delete(url.removesuffix("/content")).status_code == 200
        return requested_range(*args)

    monkeypatch.setattr(file_response, "requested_range", delete_then_range)
    answer = http.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_downloads_that_race_a_deletion_are_complete_or_refused(
    http: httpx.Client, finish: Callable[[str, bytes], None], caplog: pytest.LogCaptureFixture
) -> None:
    def download(video_id: str) -> tuple[int, int]:
        answer = http.get(f"/v1/videos/{video_id}/content")
        return answer.status_code, len(answer.content) if answer.status_code == 200 else 0

    outcomes = set()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(25):
            video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
            finish(video_id, CONTENT)
            downloads = [pool.submit(download, video_id) for _ in range(6)]
            http.delete(f"/v1/videos/{video_id}")
            outcomes |= {download.result() for download in downloads}
    assert outcomes <= {(200, len(CONTENT)), (404, 0), (410, 0)}
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_store_that_fails_during_a_download_aborts_it_with_one_log_line(
    http: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FailingFile(io.BytesIO):
        """A file on a disk that fails after the first chunk."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(ArtifactStore, "open", lambda *_: FailingFile(bytes(10_000_000)))
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(url)
    wait_for(lambda: "download aborted" in caplog.text, "the log line of the download")
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("leaves_mount_point", [False, True])
def test_a_store_that_is_not_mounted_answers_503(
    redis_url: str, redis: Redis, store: EveryRole, text_card: ModelCard, tmp_path: Path, leaves_mount_point: bool
) -> None:
    artifacts = tmp_path / "artifacts"
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(Settings(redis_url=redis_url, artifacts=artifacts)) as base_url:
        url = f"{base_url}/v1/videos"
        StoreMark(redis).bind(ArtifactStore(artifacts))
        video_id = httpx.post(url, json={"model": "tiny-text", "prompt": "x"}).json()["id"]
        (tmp_path / "made.mp4").write_bytes(CONTENT)
        assert store.start(video_id, "w1") is not None
        made = ArtifactStore(artifacts).write(video_id, "video", tmp_path / "made.mp4")
        assert store.complete(video_id, {"video": made}, Timings(), "w1")
        artifacts.rename(tmp_path / "away")
        if leaves_mount_point:
            artifacts.mkdir()
        answer = httpx.get(f"{url}/{video_id}/content")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "artifact_store")
        assert int(answer.headers["retry-after"]) > 0
        if leaves_mount_point:
            artifacts.rmdir()
        (tmp_path / "away").rename(artifacts)
        assert httpx.get(f"{url}/{video_id}/content").content == CONTENT
