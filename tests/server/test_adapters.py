"""The adapters of a model, as clients see and name them."""

import json
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs.adapter_cards import AdapterCard
from jobs.admission.worker_load import WorkerLoad, publish_load
from jobs.cards import ModelCard, announce
from jobs.videos.store import VideoStore

ROUND = AdapterCard(name="round", model="tiny-text", description="Circles.", scale=0.5, trigger_words=["round"])
BLUE = AdapterCard(name="blue", model="tiny-text")
LABELS = AdapterCard(name="labels", model="tiny-class")
REQUEST = {"model": "tiny-text", "prompt": "a red circle"}


@pytest.fixture(autouse=True)
def announced(http: httpx.Client, redis: Redis, text_card: ModelCard, class_card: ModelCard) -> None:
    announce(redis, text_card.model_copy(update={"adapters": [BLUE, ROUND]}), "w1", 600)
    announce(redis, class_card.model_copy(update={"adapters": [LABELS]}), "w1", 600)


def create(http: httpx.Client, adapters: Any, **changes: Any) -> httpx.Response:
    return http.post("/v1/videos", json=REQUEST | {"adapters": adapters} | changes)


def test_adapters_are_listed_with_their_models(http: httpx.Client, redis: Redis) -> None:
    publish_load(redis, "w1", WorkerLoad(cost_per_second={}, refused_adapters={"broken": "NaN in broken"}), 60)
    answer = http.get("/v1/adapters").json()
    assert answer["object"] == "list"
    shown = [(one["name"], one["model"], one["status"], one["error"]) for one in answer["data"]]
    assert shown == [
        ("labels", "tiny-class", "available", None),
        ("blue", "tiny-text", "available", None),
        ("round", "tiny-text", "available", None),
        ("broken", None, "refused", "NaN in broken"),
    ]
    model = http.get("/v1/models/tiny-text").json()
    assert model["adapters"] == [BLUE.model_dump(), ROUND.model_dump()]


def test_a_video_has_the_adapters_that_its_request_names(http: httpx.Client, store: VideoStore) -> None:
    video = create(http, [{"name": "round"}, {"name": "blue", "scale": -2}]).json()
    assert video["adapters"] == [{"name": "round", "scale": 0.5}, {"name": "blue", "scale": -2.0}]
    uses = [use.model_dump() for use in store.get(video["id"]).request.adapters]
    assert uses == video["adapters"]
    assert create(http, []).json()["adapters"] == []
    assert http.post("/v1/videos", json=REQUEST).json()["adapters"] == []


def test_a_form_has_them_as_json_text(http: httpx.Client) -> None:
    text = json.dumps([{"name": "blue", "scale": 1.5}])
    video = http.post("/v1/videos", data=REQUEST | {"adapters": text}).json()
    assert video["adapters"] == [{"name": "blue", "scale": 1.5}]


def test_an_adapter_decides_the_model(http: httpx.Client) -> None:
    video = http.post("/v1/videos", json={"class_label": 0, "adapters": [{"name": "labels"}]}).json()
    assert (video["model"], video["adapters"][0]["name"]) == ("tiny-class", "labels")


def test_a_remix_keeps_them(http: httpx.Client) -> None:
    video = create(http, [{"name": "round"}]).json()
    remix = http.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "a blue star"}).json()
    assert remix["adapters"] == video["adapters"]


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ([{"name": "square"}], "adapters is 'square'; tiny-text has the adapters blue, round"),
        ([{"name": "labels"}], "tiny-text has the adapters blue, round"),
        ([{"name": "../../etc/passwd"}], "has the adapters"),
        ([{"name": "https://example.com/lora"}], "has the adapters"),
        ([{"name": ""}], "has the adapters"),
        ([{"name": "round"}, {"name": "round", "scale": 2}], "adapters is 'round'; it is named twice"),
        ([{"name": "round"}] * 5, "at most 4 items"),
        ([{"name": "round", "scale": 11}], "less than or equal to 10"),
        ([{"name": "round", "scale": "1"}], "valid number"),
        ([{"name": "round", "path": "/tmp"}], "unknown field 'path'"),
        ([{"scale": 1}], "adapters"),
        (["round"], "adapters"),
        ("round", "adapters"),
        ({"name": "round"}, "adapters"),
    ],
)
def test_others_are_refused(adapters: Any, message: str, http: httpx.Client) -> None:
    answer = create(http, adapters)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "adapters"
    assert message in error["message"]


def test_a_model_without_adapters_says_so(http: httpx.Client, redis: Redis, text_card: ModelCard) -> None:
    announce(redis, text_card, "w1", 600)
    answer = create(http, [{"name": "round"}])
    assert "tiny-text has no adapters" in answer.json()["error"]["message"]
