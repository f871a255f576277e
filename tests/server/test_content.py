import os
import time
from collections.abc import Callable

import httpx
import pytest
from redis import Redis

from jobs.settings import Settings
from jobs.store import VideoStore

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


def test_head_tells_what_get_would(http: httpx.Client, url: str) -> None:
    head, get = http.head(url), http.get(url)
    assert head.status_code == 200
    assert head.content == b""
    assert http.head(url, headers={"range": "bytes=0-1"}).headers["content-length"] == "200000"
    for name in ("content-length", "etag", "content-type", "accept-ranges", "content-disposition"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
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
def test_a_part_of_the_file(http: httpx.Client, url: str, asked: str, start: int, end: int) -> None:
    answer = http.get(url, headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/200000"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", ["bytes=200000-", "bytes=300000-300001", "bytes=-0"])
def test_a_part_that_is_not_there(http: httpx.Client, url: str, asked: str) -> None:
    answer = http.get(url, headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */200000"
    assert "200000 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=0-1,5-6", "bytes", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 5000 + "-"]
)
def test_what_is_no_range_is_ignored(http: httpx.Client, url: str, asked: str) -> None:
    answer = http.get(url, headers={"range": asked})
    assert (answer.status_code, len(answer.content)) == (200, 200_000)


def test_a_client_that_has_the_file_is_not_sent_it_again(http: httpx.Client, url: str) -> None:
    etag = http.get(url).headers["etag"]
    for held in (etag, f'"other", W/{etag}', "*"):
        answer = http.get(url, headers={"if-none-match": held, "range": "bytes=0-1"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert http.get(url, headers={"if-none-match": '"other"'}).status_code == 200
    assert http.get(url, headers={"if-range": etag, "range": "bytes=0-1"}).status_code == 206
    for asked in ("bytes=0-1", "bytes=200000-"):
        assert http.get(url, headers={"if-range": '"other"', "range": asked}).content == CONTENT


def test_a_video_that_is_not_ready(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    answer = http.get(f"/v1/videos/{video_id}/content")
    assert answer.status_code == 409
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "video_not_ready"


def test_a_video_that_failed_says_why(http: httpx.Client, store: VideoStore, video_id: str) -> None:
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


def test_an_expired_video_is_gone_for_a_while_and_then_was_never_there(
    http: httpx.Client, redis: Redis, store: VideoStore, url: str, video_id: str
) -> None:
    store.bury(store.get(video_id))
    answer = http.get(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "video_expired")
    assert http.get(f"/v1/videos/{video_id}").status_code == 404
    assert http.get("/v1/videos").json()["data"] == []
    redis.delete(f"framedit:gone:{video_id}")  # a day has passed
    assert http.get(url).status_code == 404


def test_the_server_clears_away_what_has_expired(
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


def test_a_variant_that_there_is_not(http: httpx.Client, url: str) -> None:
    answer = http.get(url, params={"variant": "audio"})
    assert answer.status_code == 400
    message = "variant is 'audio'; it should be 'video', 'thumbnail' or 'spritesheet'"
    assert answer.json()["error"]["message"] == message
    assert answer.json()["error"]["param"] == "variant"


@pytest.mark.parametrize(
    ("variant", "media_type", "ending"), [("thumbnail", "image/webp", "webp"), ("spritesheet", "image/jpeg", "jpg")]
)
def test_the_pictures(http: httpx.Client, url: str, video_id: str, variant: str, media_type: str, ending: str) -> None:
    answer = http.get(url, params={"variant": variant})
    assert answer.content == f"the {variant} of ".encode() + CONTENT[:10]
    assert answer.headers["content-type"] == media_type
    assert answer.headers["etag"] != http.get(url).headers["etag"]
    assert answer.headers["content-disposition"].endswith(f'-{video_id[-6:]}.{ending}"')


def test_a_prompt_in_another_script_names_the_file(http: httpx.Client, finish: Callable[[str, bytes], None]) -> None:
    video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "красный круг / .."}).json()["id"]
    finish(video_id, b"mp4")
    disposition = http.get(f"/v1/videos/{video_id}/content").headers["content-disposition"]
    assert disposition.startswith("inline; filename*=utf-8''%D0%BA")
    assert disposition.endswith(f"{video_id[-6:]}.mp4")
