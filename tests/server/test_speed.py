"""The field `speed` over HTTP."""

from typing import Any

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.videos.store import VideoStore
from tests.jobs.test_speed_plans import ROWS, make_plan

TEXT = {"model": "tiny-text", "prompt": "a red circle", "num_inference_steps": 50}


@pytest.fixture
def calibrated(http: httpx.Client, redis: Redis, text_card: ModelCard) -> httpx.Client:
    """A server whose model has a balanced plan for ddim."""
    announce(redis, text_card.model_copy(update={"speed_plans": [make_plan()]}), "w1", ttl_seconds=600)
    return http


def test_the_video_shows_the_rows_that_its_plan_computes(calibrated: httpx.Client, store: VideoStore) -> None:
    exact = calibrated.post("/v1/videos", json=TEXT).json()
    video = calibrated.post("/v1/videos", json=TEXT | {"speed": "balanced"}).json()
    rows = sum(map(int, ROWS))
    assert (exact["speed"], exact["rows_computed"], exact["rows_saved"]) == ("exact", 100, 0)
    assert (video["speed"], video["rows_computed"], video["rows_saved"]) == ("balanced", rows, 100 - rows)
    records = {each["id"]: store.get(each["id"]) for each in (exact, video)}
    assert records[video["id"]].request.speed_plan == ROWS
    assert records[video["id"]].cost * 100 == records[exact["id"]].cost * rows


def test_a_form_takes_a_speed(calibrated: httpx.Client) -> None:
    video = calibrated.post("/v1/videos", data={**TEXT, "speed": "balanced"}).json()
    assert video["speed"] == "balanced"


def test_a_remix_keeps_the_speed(calibrated: httpx.Client) -> None:
    video = calibrated.post("/v1/videos", json=TEXT | {"speed": "balanced"}).json()
    remix = calibrated.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "a blue star"}).json()
    assert (remix["speed"], remix["rows_saved"]) == ("balanced", video["rows_saved"])


def test_the_model_shows_its_speeds(calibrated: httpx.Client) -> None:
    models = {model["id"]: model for model in calibrated.get("/v1/models").json()["data"]}
    assert models["tiny-text"]["speeds"] == ["exact", "balanced"]
    assert models["tiny-text"]["speed_plans"] == [make_plan().model_dump()]
    assert models["tiny-class"]["speeds"] == ["exact"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speed": "warp"}, "speed is 'warp'; it should be 'exact', 'balanced' or 'fast'"),
        ({"speed": "fast"}, "speed is 'fast'; tiny-text allows exact, balanced with the sampler 'ddim'"),
        ({"speed": "fast"}, "`framedit calibrate tiny-text`"),
        ({"speed": "balanced", "sampler": "euler"}, "it offers 'balanced' with the samplers ddim"),
        ({"speed": "balanced", "num_inference_steps": 3}, "at least 4 num_inference_steps, and this request has 3"),
    ],
)
def test_a_speed_that_is_not_offered_is_refused(calibrated: httpx.Client, fields: dict[str, Any], message: str) -> None:
    answer = calibrated.post("/v1/videos", json=TEXT | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "speed"
    assert message in answer.json()["error"]["message"]
