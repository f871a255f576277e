import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from cli.processes.embedded_redis import EmbeddedRedis
from jobs import redis_keys
from jobs.access.api_keys import KeyStore
from jobs.admission.worker_load import WorkerLoad, publish_load
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.queue.enqueue import VideoQueue
from jobs.settings import Settings
from jobs.videos.events import VideoEvent, read_events
from jobs.videos.record import Artifact, ArtifactKind, Timings
from jobs.videos.store import VideoStore
from server.routes import events
from tests.server.event_stream import Event, following
from tests.server.serving import serving
from tests.waiting import wait_for

Finish = Callable[[str, bytes], None]
ARTIFACTS: dict[ArtifactKind, Artifact] = {"video": Artifact(num_bytes=1, sha256="0" * 64)}


@pytest.fixture
def video_id(http: httpx.Client) -> str:
    return str(http.post("/v1/videos", json={"model": "tiny-text", "prompt": "a red circle"}).json()["id"])


def test_a_stream_ends_when_its_key_is_revoked(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)
    keys = KeyStore(redis)
    (ann, token), (ben, other_token) = keys.create("ann"), keys.create("ben")
    body = {"model": "tiny-text", "prompt": "a red circle"}
    with ExitStack() as stack:
        streams = []
        for secret in (token, other_token):
            client = stack.enter_context(
                httpx.Client(base_url=http.base_url, headers={"Authorization": f"Bearer {secret}"})
            )
            video = client.post("/v1/videos", json=body).json()["id"]
            streams.append(stack.enter_context(following(client, video)))
            next(streams[-1])
        keys.revoke(ann.id)
        assert set(names(streams[0])) <= {"queued"}, "it ends without the last event"
        assert next(streams[1]).name == "queued", "others go on"
        keys.revoke(ben.id)
        assert set(names(streams[1])) <= {"queued"}


def names(stream: Iterator[Event]) -> list[str]:
    return [event.name for event in stream]


def test_a_video_is_followed_from_the_queue_to_its_end(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    with following(http, video_id) as stream:
        first = next(stream)
        assert (first.name, first.data) == ("queued", http.get(f"/v1/videos/{video_id}").json())
        store.start(video_id, "w1")
        started = next(stream)
        assert (started.name, started.data["step"], started.data["steps"]) == ("progress", 0, 20)
        for step in (1, 2):
            assert store.progress(video_id, step, 20, "w1", preview="data:image/webp;base64,AA==")
            event = next(stream)
            assert (event.data["step"], event.data["progress"]) == (step, 5 * step)
            assert event.data["preview"] == "data:image/webp;base64,AA=="
        assert store.complete(video_id, ARTIFACTS, Timings(), "w1")
        [last] = stream
        assert (last.name, last.data) == ("completed", http.get(f"/v1/videos/{video_id}").json())


def test_the_eta_of_a_progress_event_is_the_one_of_the_video(
    http: httpx.Client, redis: Redis, store: VideoStore, video_id: str
) -> None:
    # 20 steps of 2 rows of 16 frames of 24 tokens, a step a second, and two seconds for the file
    load = WorkerLoad(cost_per_second={"tiny-text": 768.0}, finishing_seconds={"tiny-text": 2.0})
    publish_load(redis, "w1", load, ttl_seconds=60)
    with following(http, video_id) as events:
        assert next(events).data["eta_seconds"] == 22
        store.start(video_id, "w1")
        assert next(events).data["eta_seconds"] == 22
        store.progress(video_id, 5, 20, "w1")
        assert next(events).data["eta_seconds"] == 17
        assert http.get(f"/v1/videos/{video_id}").json()["eta_seconds"] == 17
    with following(http, video_id) as events:
        assert next(events).data["eta_seconds"] == 17, "the present state"


def test_a_late_subscriber_receives_the_present_state(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    store.progress(video_id, 4, 20, "w1", preview="data:image/webp;base64,AA==")
    store.progress(video_id, 5, 20, "w1")
    with following(http, video_id) as stream:
        event = next(stream)
        assert (event.name, event.data["step"], event.data["preview"]) == ("progress", 5, "data:image/webp;base64,AA==")
    store.fail(video_id, "out_of_memory", "the device has too little memory", "w1")
    with following(http, video_id) as stream:
        [event] = stream
    assert (event.name, event.data["error"]["code"]) == ("failed", "out_of_memory")


def test_a_stream_resumes_after_the_last_event_id(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    with following(http, video_id) as stream:
        seen = next(stream)
    for step in range(1, 6):
        store.progress(video_id, step, 20, "w1")
    with following(http, video_id, seen.id) as stream:
        missed = list(islice(stream, 5))
        assert [event.data["step"] for event in missed] == [1, 2, 3, 4, 5]
        store.complete(video_id, ARTIFACTS, Timings(), "w1")
        assert names(stream) == ["completed"]
    with following(http, video_id, missed[2].id) as stream:
        rest = list(stream)
    assert names(iter(rest)) == ["progress", "progress", "completed"]
    after_the_end = http.get(f"/v1/videos/{video_id}/events", headers={"Last-Event-ID": rest[-1].id})
    assert after_the_end.status_code == 204, "browsers come back for ever, unless they are stream not to"


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_invalid_event_id_starts_with_the_present_state(
    http: httpx.Client, redis: Redis, store: VideoStore, video_id: str, forgotten: bool
) -> None:
    store.start(video_id, "w1")
    store.complete(video_id, ARTIFACTS, Timings(), "w1")
    if forgotten:
        redis.delete(redis_keys.events(video_id))
    for garbage in (None, "", "x", "1-2-3", "9" * 30 + "-0", "-"):
        with following(http, video_id, garbage) as stream:
            assert names(stream) == ["completed"]


def test_a_stream_in_redis_is_bounded_and_expires(redis: Redis, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    for step in range(1, 201):
        store.progress(video_id, step, 200, "w1")
    assert redis.xlen(redis_keys.events(video_id)) == 64
    assert redis.ttl(redis_keys.events(video_id)) == -1
    store.complete(video_id, ARTIFACTS, Timings(), "w1")
    assert 0 < redis.ttl(redis_keys.events(video_id)) <= 3600


def test_a_requeued_video_sends_a_queued_event(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    with following(http, video_id) as stream:
        assert next(stream).name == "progress"
        store.requeue(video_id, "w1")
        again = next(stream)
        assert (again.name, again.data["status"], again.data["queue_position"]) == ("queued", "queued", 1)


def test_a_deleted_video_ends_its_streams(http: httpx.Client, redis: Redis, video_id: str) -> None:
    with following(http, video_id) as stream:
        assert next(stream).name == "queued"
        http.delete(f"/v1/videos/{video_id}")
        [last] = stream
    assert (last.name, last.data["id"], last.data["error"]["code"]) == ("failed", video_id, "deleted")
    assert redis.exists(redis_keys.events(video_id)) == 0
    assert http.get(f"/v1/videos/{video_id}/events").status_code == 404


def test_heartbeats_repeat_the_queue_position(
    http: httpx.Client, store: VideoStore, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.02)
    other = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
    with following(http, other) as stream:
        assert next(stream).data["queue_position"] == 2
        store.cancel(video_id)
        assert any(event.data["queue_position"] == 1 for event in islice(stream, 500))
        store.start(other, "w1")
    with http.stream("GET", f"/v1/videos/{other}/events", timeout=60) as answer:
        assert ": ping" in answer.iter_lines()


def test_many_streams_share_two_connections(http: httpx.Client, redis: Redis, store: VideoStore, video_id: str) -> None:
    def clients() -> int:
        return len(redis.client_list())

    with following(http, video_id) as stream:
        next(stream)
        before, bells_before = clients(), redis.pubsub_numsub("framedit:events")
    ended: list[list[str]] = []

    def follow() -> None:
        with following(http, video_id) as stream:
            ready.release()
            ended.append(names(stream))

    ready = threading.Semaphore(0)
    threads = [threading.Thread(target=follow) for _ in range(30)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=60)
    assert redis.pubsub_numsub("framedit:events") == bells_before
    assert clients() < before + len(threads)
    store.cancel(video_id)
    for thread in threads:
        thread.join(60)
    assert [stream[-1] for stream in ended] == ["failed"] * 30


def test_events_continue_after_a_lost_notification_connection(http: httpx.Client, redis: Redis, video_id: str) -> None:
    with following(http, video_id) as stream:
        assert next(stream).name == "queued"
        # The notification connection breaks. Events until it is restored must still arrive.
        redis.client_kill_filter(_type="pubsub")
        VideoQueue(redis).cancel(video_id)
        assert names(stream) == ["failed"]


def test_a_stopping_server_ends_its_streams(redis_url: str, tmp_path: Path, text_card: ModelCard) -> None:
    settings = Settings(redis_url=redis_url, artifacts=tmp_path)
    with connect(redis_url) as redis:
        announce(redis, text_card, "w1", ttl_seconds=600)
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=60))
        with serving(settings) as url:  # which waits until the server has ended
            http.base_url = httpx.URL(url)
            video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
            stream = stack.enter_context(following(http, video_id))
            assert next(stream).name == "queued"
        assert list(stream) == []


def test_a_stream_of_a_queued_video_outlives_a_restart_of_redis(
    tmp_path: Path, text_card: ModelCard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)
    database = EmbeddedRedis(tmp_path / "redis")
    url = database.start()
    try:
        with (
            serving(Settings(redis_url=url, artifacts=tmp_path / "artifacts")) as base_url,
            connect(url) as redis,
            httpx.Client(base_url=base_url) as http,
        ):
            announce(redis, text_card, "w1", ttl_seconds=600)
            video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
            with following(http, video_id) as stream:
                assert next(stream).name == "queued"
                database.stop()
                line = f"{video_id}: event stream waits for Redis"
                wait_for(lambda: line in caplog.text, "the log line of the stream")
                database.start()
                VideoQueue(redis).cancel(video_id)
                assert names(stream)[-1] == "failed"
    finally:
        database.stop()
    assert caplog.text.count(line) == 1
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_video_that_ends_while_its_stream_opens_sends_the_id_of_its_last_event(
    http: httpx.Client, redis: Redis, store: VideoStore, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.delete(redis_keys.events(video_id))

    def read_before_the_end(*args: Any) -> Sequence[VideoEvent]:
        found = read_events(*args)
        store.cancel(video_id)
        return found

    monkeypatch.setattr(events, "read_events", read_before_the_end)
    with following(http, video_id) as stream:
        [last] = stream
    assert (last.name, last.id) == ("failed", read_events(redis, video_id)[-1].id)
