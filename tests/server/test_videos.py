import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs import redis_keys
from jobs.admission.worker_load import WorkerLoad, publish_load
from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.videos.store import VideoStore
from tests.server.serving import serving

Finish = Callable[[str, bytes], None]


def create(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "a red circle"} | fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_record_that_cannot_be_read_is_skipped_and_logged(
    http: httpx.Client, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = (create(http)["id"] for _ in range(2))
    redis.hset(f"framedit:video:{broken}", "request", "{")
    with caplog.at_level(logging.ERROR):
        assert [video["id"] for video in http.get("/v1/videos").json()["data"]] == [whole]
        assert http.get(f"/v1/videos/{broken}").status_code == 404
    assert [record.levelname for record in caplog.records if broken in record.getMessage()] == ["ERROR", "ERROR"]


def test_a_list_searches_no_queue(http: httpx.Client, redis: Redis) -> None:
    for _ in range(10):
        create(http, n=10)
    searches = redis.info("commandstats").get("cmdstat_lpos", {}).get("calls", 0)
    listed = http.get("/v1/videos", params={"limit": 100, "order": "asc"}).json()["data"]
    assert [video["queue_position"] for video in listed] == list(range(1, 101))
    assert redis.info("commandstats").get("cmdstat_lpos", {}).get("calls", 0) == searches


def test_a_video_has_every_field(http: httpx.Client) -> None:
    video = create(http, seed=7)
    assert video.pop("id").startswith("video_")
    assert video.pop("created_at") > 1_700_000_000
    assert video == {
        "object": "video",
        "model": "tiny-text",
        "status": "queued",
        "progress": 0,
        "started_at": None,
        "completed_at": None,
        "expires_at": None,
        "prompt": "a red circle",
        "negative_prompt": "",
        "clean_caption": False,
        "class_label": None,
        "class_name": None,
        "size": "96x64",
        "seconds": "2",
        "num_frames": 16,
        "fps": 8,
        "seed": 7,
        "num_inference_steps": 20,
        "sampler": "ddim",
        "guidance_scale": 7.5,
        "adapters": [],
        "speed": "exact",
        "rows_computed": 40,
        "rows_saved": 0,
        "priority": "normal",
        "queue_position": 1,
        "eta_seconds": None,
        "timings": {"queue_s": None, "denoise_s": None, "decode_s": None, "encode_s": None},
        "stage_durations": None,
        "peak_memory_mb": None,
        "original_prompt": None,
        "prompt_enhancement": None,
        "output_format": "mp4",
        "output_quality": "high",
        "error": None,
        "remixed_from_video_id": None,
        "source_video_id": None,
        "reference": None,
        "strength": None,
        "overlap_frames": None,
        "windows": 1,
        "frame_rate_multiplier": 1,
        "metadata": {},
    }


def test_every_field_of_the_request_is_kept(http: httpx.Client, store: VideoStore) -> None:
    chosen = {
        "negative_prompt": "blurry",
        "clean_caption": True,
        "seed": 2**31 - 1,
        "num_inference_steps": 250,
        "guidance_scale": 0.0,
        "sampler": "euler",
        "num_frames": 8,
        "fps": 4,
        "priority": "high",
        "metadata": {"shot": "12"},
    }
    video = create(http, **chosen, size="96x64", seconds="2")
    assert {name: video[name] for name in chosen} == chosen
    assert video["seconds"] == "2"
    kept = store.get(video["id"]).request.model_dump()
    assert {name: kept[name] for name in chosen} == chosen


def test_a_form_is_equivalent_to_json(http: httpx.Client) -> None:
    fields = {"model": "tiny-text", "prompt": "a red circle", "seed": 7, "guidance_scale": 3.5, "seconds": 1}
    as_json = http.post("/v1/videos", json=fields | {"metadata": {"a": "b"}}).json()
    for metadata in ({"metadata[a]": "b"}, {"metadata": '{"a": "b"}'}):
        parts = {name: (None, str(value)) for name, value in {**fields, **metadata}.items()}
        multipart = http.post("/v1/videos", files=parts).json()
        encoded = http.post("/v1/videos", data={**fields, **metadata}).json()
        for other in (multipart, encoded):
            own = {"id", "created_at", "queue_position"}
            assert {k: v for k, v in other.items() if k not in own} == {
                k: v for k, v in as_json.items() if k not in own
            }


def test_width_and_height_are_the_size(http: httpx.Client) -> None:
    assert create(http, width=96, height=64)["size"] == "96x64"
    refused = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x", "width": 64, "height": 64})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "width")
    assert refused.json()["error"]["message"] == "width is 64; tiny-text allows 96"
    form = {"model": "tiny-text", "prompt": "x", "width": "96", "height": "64"}
    assert http.post("/v1/videos", data=form).json()["size"] == "96x64"


def test_the_user_is_kept_as_metadata(http: httpx.Client) -> None:
    assert create(http, user="u1", metadata={"a": "b"})["metadata"] == {"a": "b", "user": "u1"}
    body = {"model": "tiny-text", "prompt": "x", "user": "u1", "metadata": {"user": "u2"}}
    assert http.post("/v1/videos", json=body).json()["error"]["param"] == "user"


def test_a_float_with_an_integer_value_is_an_integer(http: httpx.Client) -> None:
    assert create(http, seed=7.0, num_frames=3.0)["seed"] == 7


def test_null_equals_an_absent_field(http: httpx.Client) -> None:
    assert create(http, num_frames=None, metadata=None, class_label=None)["num_frames"] == 16


def test_seeds_are_drawn_when_not_given(http: httpx.Client) -> None:
    seeds = {create(http)["seed"] for _ in range(5)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_seconds_and_num_frames_are_equivalent(http: httpx.Client) -> None:
    assert create(http, seconds="1")["num_frames"] == 8
    assert create(http, seconds=1.5)["num_frames"] == 12
    assert create(http, seconds="1", fps=16)["num_frames"] == 16
    assert create(http, num_frames=3)["seconds"] == "0.375"


@pytest.mark.parametrize("label", [1, "1", "circle-right"])
def test_a_class_is_given_by_index_or_name(http: httpx.Client, label: int | str) -> None:
    answer = http.post("/v1/videos", json={"model": "tiny-class", "class_label": label, "prompt": ""})
    video = answer.json()
    assert (video["class_label"], video["class_name"], video["prompt"]) == (1, "circle-right", None)
    assert video["negative_prompt"] is None


def test_several_videos_at_once(http: httpx.Client) -> None:
    answer = create(http, n=3, seed=5)
    assert answer["object"] == "list"
    assert [video["seed"] for video in answer["data"]] == [5, 6, 7]
    assert [video["queue_position"] for video in answer["data"]] == [1, 2, 3]
    assert (answer["first_id"], answer["last_id"]) == (answer["data"][0]["id"], answer["data"][2]["id"])


def test_a_model_without_workers_queues_videos(http: httpx.Client, redis: Redis) -> None:
    redis.delete("framedit:workers:tiny-text")
    assert create(http)["status"] == "queued"


def test_a_polled_video_from_queued_to_completed(http: httpx.Client, store: VideoStore, finish: Finish) -> None:
    video_id = create(http)["id"]
    url = f"/v1/videos/{video_id}"
    waiting = http.get(url)
    assert waiting.json()["status"] == "queued"
    assert int(waiting.headers["openai-poll-after-ms"]) > 0

    store.start(video_id, "w1")
    store.progress(video_id, 5, 20, "w1")
    running = http.get(url)
    assert (running.json()["status"], running.json()["progress"]) == ("in_progress", 25)
    assert running.json()["queue_position"] is None
    assert running.json()["timings"]["queue_s"] >= 0
    store.requeue(video_id)

    finish(video_id, b"mp4")
    done = http.get(url)
    assert (done.json()["status"], done.json()["progress"]) == ("completed", 100)
    assert done.json()["completed_at"] >= done.json()["started_at"] >= done.json()["created_at"]
    assert done.json()["timings"]["denoise_s"] == 1.0
    assert "openai-poll-after-ms" not in done.headers


def test_a_failed_video_answers_200(http: httpx.Client, store: VideoStore) -> None:
    video_id = create(http)["id"]
    store.fail(video_id, "out_of_memory", "the device has too little memory")
    answer = http.get(f"/v1/videos/{video_id}")
    assert answer.status_code == 200
    assert answer.json()["error"] == {"code": "out_of_memory", "message": "the device has too little memory"}


def test_the_list_has_pages(http: httpx.Client) -> None:
    ids = [video["id"] for video in create(http, n=5)["data"]][::-1]
    first = http.get("/v1/videos", params={"limit": 2}).json()
    assert [video["id"] for video in first["data"]] == ids[:2]
    assert (first["object"], first["first_id"], first["last_id"], first["has_more"]) == ("list", ids[0], ids[1], True)
    rest = http.get("/v1/videos", params={"after": ids[1]}).json()
    assert ([video["id"] for video in rest["data"]], rest["has_more"]) == (ids[2:], False)
    oldest = http.get("/v1/videos", params={"order": "asc", "limit": 1}).json()
    assert [video["id"] for video in oldest["data"]] == ids[4:]


def test_an_empty_list(http: httpx.Client) -> None:
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert http.get("/v1/videos").json() == empty


def test_deleting_removes_record_file_and_job(http: httpx.Client, redis: Redis, finish: Finish) -> None:
    finished, waiting = create(http)["id"], create(http)["id"]
    finish(finished, b"mp4")
    for video_id in (finished, waiting):
        answer = http.delete(f"/v1/videos/{video_id}")
        assert answer.json() == {"id": video_id, "object": "video.deleted", "deleted": True}
        for gone in (http.get, http.delete):
            assert gone(f"/v1/videos/{video_id}").status_code == 404
        assert http.get(f"/v1/videos/{video_id}/content").status_code == 404
    assert http.get("/v1/videos").json()["data"] == []
    assert waiting.encode() not in redis.lrange(redis_keys.queue(redis_keys.queue_name("tiny-text")), 0, -1)


def test_deleting_a_running_video_stops_its_worker(http: httpx.Client, store: VideoStore) -> None:
    video_id = create(http)["id"]
    store.start(video_id, "w1")
    http.delete(f"/v1/videos/{video_id}")
    assert not store.wanted(video_id, "w1")


def test_a_cancelled_video_keeps_its_record(http: httpx.Client, store: VideoStore, finish: Finish) -> None:
    running = create(http)["id"]
    store.start(running, "w1")
    cancelled = http.post(f"/v1/videos/{running}/cancel")
    assert cancelled.status_code == 200
    assert (cancelled.json()["status"], cancelled.json()["error"]["code"]) == ("failed", "cancelled")
    assert not store.wanted(running, "w1")
    finished = create(http)["id"]
    finish(finished, b"mp4")
    assert http.post(f"/v1/videos/{finished}/cancel").json()["status"] == "completed"


def test_a_remix_changes_only_the_prompt(http: httpx.Client) -> None:
    source = create(http, seed=7, sampler="euler", num_frames=8)
    remix = http.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "a blue star"}).json()
    assert remix["remixed_from_video_id"] == source["id"]
    assert remix["prompt"] == "a blue star"
    changed = {"id", "created_at", "prompt", "remixed_from_video_id", "queue_position"}
    assert {k: v for k, v in remix.items() if k not in changed} == {k: v for k, v in source.items() if k not in changed}


def test_a_remix_with_a_seed_changes_only_the_seed(http: httpx.Client) -> None:
    text = create(http, seed=7, num_frames=8)
    of_class = http.post("/v1/videos", json={"model": "tiny-class", "class_label": 0, "seed": 7}).json()
    for source in (text, of_class):
        remix = http.post(f"/v1/videos/{source['id']}/remix", json={"seed": 8}).json()
        assert (remix["seed"], remix["remixed_from_video_id"]) == (8, source["id"])
        kept = source.keys() - {"id", "created_at", "seed", "remixed_from_video_id", "queue_position"}
        assert {name: remix[name] for name in kept} == {name: source[name] for name in kept}
    # The official client requires a prompt.
    assert http.post(f"/v1/videos/{of_class['id']}/remix", json={"prompt": "", "seed": 9}).json()["seed"] == 9


def test_a_remix_that_changes_nothing_or_the_prompt_of_a_class_video_is_refused(http: httpx.Client) -> None:
    video = http.post("/v1/videos", json={"model": "tiny-class", "class_label": 0}).json()
    for body in ({"prompt": "a blue star"}, {"prompt": "a blue star", "seed": 3}, {}, {"prompt": None}):
        answer = http.post(f"/v1/videos/{video['id']}/remix", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["param"] == "prompt"


def test_the_eta_is_known_once_a_worker_has_measured_its_speed(http: httpx.Client, redis: Redis) -> None:
    first = create(http, num_inference_steps=10)
    assert first["eta_seconds"] is None
    # 10 steps of 2 rows of 16 frames of 24 tokens
    publish_load(redis, "w1", WorkerLoad(cost_per_second={"tiny-text": 7680 / 2}), ttl_seconds=60)
    assert http.get(f"/v1/videos/{first['id']}").json()["eta_seconds"] == 2
    assert create(http, num_inference_steps=10)["eta_seconds"] == 4


def test_a_wait_above_the_limit_is_refused_with_retry_after(
    settings: Settings, redis: Redis, text_card: ModelCard
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    publish_load(redis, "w1", WorkerLoad(cost_per_second={"tiny-text": 7680 / 2}), ttl_seconds=60)
    with (
        serving(settings.model_copy(update={"max_wait_seconds": 5.0})) as url,
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        body = {"prompt": "a red circle", "num_inference_steps": 10}
        assert [client.post("/v1/videos", json=body).status_code for _ in range(3)] == [200] * 3
        refused = client.post("/v1/videos", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        assert len(client.get("/v1/videos").json()["data"]) == 3
