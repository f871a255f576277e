"""What edits and extensions keep of their source: everything that the request does not replace, but the seed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs.adapter_cards import AdapterCard
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.settings import Settings
from jobs.videos.store import VideoStore
from server.wire import VideoSettings
from tests.jobs.test_speed_plans import make_plan
from tests.server.references.test_requests import make_mp4
from tests.server.serving import serving
from tests.waiting import wait_for

Finish = Callable[[str, bytes], None]

# Each differs from its default, and each has another value that replaces it.
ASKED: dict[str, Any] = {
    "negative_prompt": "blur",
    "clean_caption": True,
    "num_inference_steps": 50,
    "guidance_scale": 3.0,
    "adapters": [{"name": "round", "scale": 0.5}],
    "speed": "balanced",
    "frame_rate_multiplier": 2,
    "priority": "low",
    "metadata": {"shot": "3", "user": "ann"},
    "webhook_url": "https://example.com/hook",
    "output_format": "webm",
    "output_quality": "low",
}
OTHERS: dict[str, Any] = {
    "negative_prompt": "",
    "clean_caption": False,
    "num_inference_steps": 40,
    "guidance_scale": 2.0,
    "adapters": [],
    "speed": "exact",
    "frame_rate_multiplier": 1,
    "priority": "high",
    "metadata": {},
    "webhook_url": "https://example.com/other",
    "output_format": "mp4",
    "output_quality": "high",
}
ROUTES: dict[str, dict[str, str]] = {"edits": {"prompt": "a blue circle"}, "extensions": {}}


@pytest.fixture(scope="module")
def settings(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("inheritance")
    return Settings(
        redis_url=redis_server, data_dir=folder, artifacts=folder / "artifacts", webhook_secret="secret" * 4
    )


@pytest.fixture(scope="module")
def server_url(settings: Settings) -> Iterator[str]:
    with connect(settings.redis_url or "") as redis:
        redis.flushall()  # the mark of another test's store
    with serving(settings) as url:
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the server")
        yield url


@pytest.fixture
def text_card(text_card: ModelCard) -> ModelCard:
    adapter = AdapterCard(name="round", model=text_card.id)
    changes = {"speed_plans": [make_plan()], "adapters": [adapter], "max_frames": 64, "trained_frames": 16}
    return text_card.model_copy(update=changes)


@pytest.fixture
def source(http: httpx.Client, finish: Finish, tmp_path: Path) -> str:
    """A completed video whose request differs from the defaults in every field."""
    body = {"model": "tiny-text", "prompt": "a red circle", "sampler": "ddim", "seed": 5} | ASKED
    answer = http.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    video_id = str(answer.json()["id"])
    finish(video_id, make_mp4(tmp_path / "source.mp4"))
    return video_id


def make(http: httpx.Client, store: VideoStore, route: str, source: str, **fields: Any) -> dict[str, Any]:
    """The request of a new video, as the worker gets it."""
    answer = http.post(f"/v1/videos/{route}", json={"video": {"id": source}} | ROUTES[route] | fields)
    assert answer.status_code == 200, answer.text
    return store.get(answer.json()["id"]).request.model_dump()


def test_every_value_of_the_source_differs_from_its_replacement() -> None:
    assert ASKED.keys() == OTHERS.keys()
    assert all(ASKED[name] != OTHERS[name] for name in ASKED)


def test_every_field_that_changes_a_video_is_inherited_or_left_out_on_purpose() -> None:
    own = {"model", "prompt", "enhance_prompt", "class_label", "seed", "sampler", "user"}
    assert set(VideoSettings.model_fields) - own == ASKED.keys()


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_left_out_is_that_of_the_source(http: httpx.Client, store: VideoStore, source: str, route: str) -> None:
    request = make(http, store, route, source)
    assert {name: request[name] for name in ASKED} == ASKED
    assert (request["model"], request["sampler"]) == ("tiny-text", "ddim")
    assert request["prompt"] == ROUTES[route].get("prompt", "a red circle")
    assert request["speed_plan"] is not None
    assert request["seed"] != 5


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ASKED)
def test_what_is_given_replaces_it(http: httpx.Client, store: VideoStore, source: str, route: str, name: str) -> None:
    request = make(http, store, route, source, **{name: OTHERS[name]})
    others = ASKED.keys() - {name} - ({"output_quality"} if name == "output_format" else set())
    assert request[name] == OTHERS[name]
    assert {other: request[other] for other in others} == {other: ASKED[other] for other in others}


@pytest.mark.parametrize("route", ROUTES)
def test_another_user_replaces_the_one_of_the_source(
    http: httpx.Client, store: VideoStore, source: str, route: str
) -> None:
    assert make(http, store, route, source, user="bob")["metadata"] == {"shot": "3", "user": "bob"}


def test_another_model_takes_nothing_from_the_source(
    http: httpx.Client, store: VideoStore, source: str, redis: Redis, text_card: ModelCard
) -> None:
    announce(redis, text_card.model_copy(update={"id": "other-text"}), "w1", ttl_seconds=600)
    request = make(http, store, "edits", source, model="other-text")
    assert (request["model"], request["speed"], request["adapters"], request["metadata"]) == (
        "other-text",
        "exact",
        [],
        {},
    )


def test_a_sampler_without_the_speed_of_the_source_is_refused_with_the_way_out(http: httpx.Client, source: str) -> None:
    body = {"video": {"id": source}, "prompt": "a blue circle", "sampler": "euler"}
    answer = http.post("/v1/videos/edits", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "speed"
    assert "tiny-text allows exact with the sampler 'euler'" in answer.json()["error"]["message"]
    assert http.post("/v1/videos/edits", json=body | {"speed": "exact"}).status_code == 200
