import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.events import stream_key
from jobs.records import Artifact, ArtifactKind, Timings
from jobs.settings import Settings
from jobs.store import VideoStore
from server.routes import events

from .event_stream import Event, following
from .serving import serving

Finish = Callable[[str, bytes], None]
ARTIFACTS: dict[ArtifactKind, Artifact] = {"video": Artifact(num_bytes=1, sha256="0" * 64)}


@pytest.fixture
def video_id(http: httpx.Client) -> str:
    return str(http.post("/v1/videos", json={"model": "tiny-text", "prompt": "a red circle"}).json()["id"])


def names(told: Iterator[Event]) -> list[str]:
    return [event.name for event in told]


def test_a_video_is_followed_from_the_queue_to_its_end(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    with following(http, video_id) as told:
        first = next(told)
        assert (first.name, first.data) == ("queued", http.get(f"/v1/videos/{video_id}").json())
        store.start(video_id, "w1")
        started = next(told)
        assert (started.name, started.data["step"], started.data["steps"]) == ("progress", 0, 20)
        for step in (1, 2):
            assert store.progress(video_id, step, 20, "w1", preview="data:image/webp;base64,AA==")
            event = next(told)
            assert (event.data["step"], event.data["progress"]) == (step, 5 * step)
            assert event.data["eta_seconds"] > 0
            assert event.data["preview"] == "data:image/webp;base64,AA=="
        assert store.complete(video_id, ARTIFACTS, Timings(), "w1")
        [last] = told
        assert (last.name, last.data) == ("completed", http.get(f"/v1/videos/{video_id}").json())


def test_who_comes_late_is_told_how_it_stands(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    store.progress(video_id, 4, 20, "w1", preview="data:image/webp;base64,AA==")
    store.progress(video_id, 5, 20, "w1")
    with following(http, video_id) as told:
        event = next(told)
        assert (event.name, event.data["step"], event.data["preview"]) == ("progress", 5, "data:image/webp;base64,AA==")
    store.fail(video_id, "out_of_memory", "the device has too little memory", "w1")
    with following(http, video_id) as told:
        [event] = told
    assert (event.name, event.data["error"]["code"]) == ("failed", "out_of_memory")


def test_who_comes_back_has_missed_nothing(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    with following(http, video_id) as told:
        seen = next(told)
    for step in range(1, 6):
        store.progress(video_id, step, 20, "w1")
    with following(http, video_id, seen.id) as told:
        missed = list(islice(told, 5))
        assert [event.data["step"] for event in missed] == [1, 2, 3, 4, 5]
        store.complete(video_id, ARTIFACTS, Timings(), "w1")
        assert names(told) == ["completed"]
    with following(http, video_id, missed[2].id) as told:
        rest = list(told)
    assert names(iter(rest)) == ["progress", "progress", "completed"]
    told_all = http.get(f"/v1/videos/{video_id}/events", headers={"Last-Event-ID": rest[-1].id})
    assert told_all.status_code == 204, "browsers come back for ever, unless they are told not to"


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_id_that_is_none_tells_the_present_state(
    http: httpx.Client, redis: Redis, store: VideoStore, video_id: str, forgotten: bool
) -> None:
    store.start(video_id, "w1")
    store.complete(video_id, ARTIFACTS, Timings(), "w1")
    if forgotten:
        redis.delete(stream_key(video_id))
    for garbage in (None, "", "x", "1-2-3", "9" * 30 + "-0", "-"):
        with following(http, video_id, garbage) as told:
            assert names(told) == ["completed"]


def test_a_stream_stays_short_and_ends_after_its_video(redis: Redis, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    for step in range(1, 201):
        store.progress(video_id, step, 200, "w1")
    assert redis.xlen(stream_key(video_id)) == 64
    assert redis.ttl(stream_key(video_id)) == -1
    store.complete(video_id, ARTIFACTS, Timings(), "w1")
    assert 0 < redis.ttl(stream_key(video_id)) <= 3600


def test_a_video_that_goes_back_to_the_queue_says_so(http: httpx.Client, store: VideoStore, video_id: str) -> None:
    store.start(video_id, "w1")
    with following(http, video_id) as told:
        assert next(told).name == "progress"
        store.requeue(video_id, "w1")
        again = next(told)
        assert (again.name, again.data["status"], again.data["queue_position"]) == ("queued", "queued", 1)


def test_a_deleted_video_ends_its_streams(http: httpx.Client, redis: Redis, video_id: str) -> None:
    with following(http, video_id) as told:
        assert next(told).name == "queued"
        http.delete(f"/v1/videos/{video_id}")
        [last] = told
    assert (last.name, last.data["id"], last.data["error"]["code"]) == ("failed", video_id, "deleted")
    assert redis.exists(stream_key(video_id)) == 0
    assert http.get(f"/v1/videos/{video_id}/events").status_code == 404


def test_a_silent_stream_beats_and_tells_the_place_in_the_queue(
    http: httpx.Client, store: VideoStore, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.02)
    other = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
    with following(http, other) as told:
        assert next(told).data["queue_position"] == 2
        store.cancel(video_id)
        assert any(event.data["queue_position"] == 1 for event in islice(told, 500))
        store.start(other, "w1")
    with http.stream("GET", f"/v1/videos/{other}/events", timeout=60) as answer:
        assert ": ping" in answer.iter_lines()


def test_many_streams_share_two_connections(http: httpx.Client, redis: Redis, store: VideoStore, video_id: str) -> None:
    def clients() -> int:
        return len(redis.client_list())

    with following(http, video_id) as told:
        next(told)
        before, bells_before = clients(), redis.pubsub_numsub("framedit:events")
    ended: list[list[str]] = []

    def follow() -> None:
        with following(http, video_id) as told:
            ready.release()
            ended.append(names(told))

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
    assert [told[-1] for told in ended] == ["failed"] * 30


def test_events_go_on_after_the_database_was_away(http: httpx.Client, redis: Redis, video_id: str) -> None:
    with following(http, video_id) as told:
        assert next(told).name == "queued"
        # What the bell's connection breaking looks like; what happens until it is back must still be told.
        redis.client_kill_filter(_type="pubsub")
        VideoStore(redis).cancel(video_id)
        assert names(told) == ["failed"]


def test_a_server_that_stops_ends_its_streams(redis_url: str, tmp_path: Path, text_card: ModelCard) -> None:
    settings = Settings(redis_url=redis_url, artifacts=tmp_path)
    with connect(redis_url) as redis:
        announce(redis, text_card, "w1", ttl_seconds=600)
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=60))
        with serving(settings) as url:  # which waits until the server has ended
            http.base_url = httpx.URL(url)
            video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
            told = stack.enter_context(following(http, video_id))
            assert next(told).name == "queued"
        assert list(told) == []
