import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from tests.server.serving import serving

Finish = Callable[[str, bytes], None]

BODY = {"model": "tiny-text", "prompt": "a red circle", "seed": 7}


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def request_in_background(pool: ThreadPoolExecutor, http: httpx.Client, **fields: Any) -> "Future[httpx.Response]":
    return pool.submit(http.post, "/v1/videos/sync", json=BODY | fields, timeout=60)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError("waited for a minute in vain")


def the_video(store: VideoStore, answering: "Future[httpx.Response]") -> VideoRecord:
    until(lambda: store.unfinished() or answering.done())
    if answering.done():
        raise AssertionError(answering.result().text)
    return store.unfinished()[0]


def test_the_answer_is_the_file(
    http: httpx.Client, store: VideoStore, finish: Finish, background: ThreadPoolExecutor
) -> None:
    answering = request_in_background(background, http)
    video_id = the_video(store, answering).id
    finish(video_id, b"the file")
    answer = answering.result()
    assert (answer.status_code, answer.content) == (200, b"the file")
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["x-video-id"] == video_id
    assert answer.headers["x-request-id"]
    assert (answer.headers["x-model"], answer.headers["x-inference-time-s"]) == ("tiny-text", "1.750")
    video = http.get(f"/v1/videos/{video_id}").json()
    assert video["peak_memory_mb"] == 300.0
    assert video["stage_durations"] == {
        "queue": video["timings"]["queue_s"],
        "denoise": 1.0,
        "decode": 0.5,
        "encode": 0.25,
    }
    timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert (timing.pop("queue") != "", timing) == (True, {"denoise": "1000.0", "decode": "500.0", "encode": "250.0"})
    assert answer.headers["content-disposition"].startswith('inline; filename="a-red-circle-')


def test_range_and_etag_headers_are_ignored(
    http: httpx.Client, store: VideoStore, finish: Finish, background: ThreadPoolExecutor
) -> None:
    http.headers.update({"range": "bytes=0-1", "if-none-match": "*"})
    answering = request_in_background(background, http)
    finish(the_video(store, answering).id, b"the file")
    assert (answering.result().status_code, answering.result().content) == (200, b"the file")


def test_a_video_that_fails_answers_its_reason(
    http: httpx.Client, store: VideoStore, background: ThreadPoolExecutor
) -> None:
    answering = request_in_background(background, http)
    store.fail(the_video(store, answering).id, "out_of_memory", "the device has too little memory")
    assert answering.result().status_code == 404
    assert "the device has too little memory" in answering.result().json()["error"]["message"]


def test_a_deleted_video_ends_the_wait(http: httpx.Client, store: VideoStore, background: ThreadPoolExecutor) -> None:
    answering = request_in_background(background, http)
    store.delete(the_video(store, answering).id)
    assert answering.result().status_code == 404


def test_a_video_continues_after_the_timeout(
    redis_url: str, redis: Redis, store: VideoStore, text_card: ModelCard, tmp_path: Path
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    settings = Settings(redis_url=redis_url, artifacts=tmp_path, sync_timeout_seconds=0.05)
    with serving(settings) as url:
        answer = httpx.post(f"{url}/v1/videos/sync", json=BODY, timeout=60)
    [record] = store.unfinished()
    assert answer.status_code == 504
    assert answer.headers["location"] == f"/v1/videos/{record.id}"
    assert answer.headers["x-video-id"] == record.id
    assert answer.headers["x-should-retry"] == "false"
    assert record.id in answer.json()["error"]["message"]
    assert record.status == "queued"


def test_a_stopping_server_answers_504(
    redis_url: str,
    redis: Redis,
    store: VideoStore,
    text_card: ModelCard,
    tmp_path: Path,
    background: ThreadPoolExecutor,
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    with serving(Settings(redis_url=redis_url, artifacts=tmp_path)) as url:
        answering = background.submit(httpx.post, f"{url}/v1/videos/sync", json=BODY, timeout=60)
        record = the_video(store, answering)
    assert answering.result().status_code == 504
    assert store.get(record.id).status == "queued"


def leave(http: httpx.Client, **headers: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/videos/sync", json=BODY, headers=headers, timeout=httpx.Timeout(60, read=0.5))


def test_a_disconnect_cancels_the_video(http: httpx.Client, store: VideoStore) -> None:
    leave(http)
    [record] = store.list().records
    until(lambda: store.get(record.id).status == "failed")
    error = store.get(record.id).error
    assert error is not None
    assert error.code == "cancelled"


def test_a_disconnect_with_an_idempotency_key_keeps_the_video(http: httpx.Client, store: VideoStore) -> None:
    leave(http, **{"Idempotency-Key": "k1"})
    [kept] = store.unfinished()
    leave(http)  # of which the server is known to have noticed, once it is cancelled
    until(lambda: [record.id for record in store.unfinished()] == [kept.id])


def test_only_one_video_per_request(http: httpx.Client, store: VideoStore) -> None:
    answer = http.post("/v1/videos/sync", json=BODY | {"n": 2})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
    assert http.post("/v1/videos/sync", json=BODY | {"n": 1, "seed": -1}).status_code == 400
    assert store.unfinished() == []
