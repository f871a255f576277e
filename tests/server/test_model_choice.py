"""Requests without `model`."""

from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from tests.server.serving import serving

NO_NAME = "model is missing, and the other fields do not decide it; name one of "


def model_of(http: httpx.Client, **fields: object) -> str:
    """The model of a new video, or the message that refuses it."""
    body = http.post("/v1/videos", json=fields).json()
    return str(body.get("model") or body["error"]["message"])


@pytest.fixture
def other_text_card(redis: Redis, text_card: ModelCard) -> ModelCard:
    """A second text model, of another size."""
    card = text_card.model_copy(update={"id": "wide-text", "width": 128})
    announce(redis, card, "w1", ttl_seconds=600)
    return card


def test_the_only_model_that_the_fields_fit(http: httpx.Client) -> None:
    assert model_of(http, prompt="a red circle") == "tiny-text"
    assert model_of(http, class_label=0) == "tiny-class"
    assert model_of(http, class_label="star-up") == "tiny-class"


def test_a_wrong_value_is_explained_by_the_model_it_was_meant_for(http: httpx.Client) -> None:
    assert model_of(http, prompt="x", sampler="magic") == "sampler is 'magic'; tiny-text allows ddim, euler"
    assert model_of(http, class_label="square").startswith("class_label is 'square'; tiny-class has the classes")


def test_fields_that_decide_nothing(http: httpx.Client, redis: Redis) -> None:
    assert model_of(http) == NO_NAME + "tiny-class, tiny-text"
    redis.flushall()
    assert model_of(http, prompt="x").startswith("model is missing, and no worker has announced a model yet")


def test_several_models_of_one_kind(http: httpx.Client, other_text_card: ModelCard) -> None:
    assert model_of(http, prompt="x") == NO_NAME + "tiny-text, wide-text"
    assert model_of(http, prompt="x", size="128x64") == "wide-text"
    assert model_of(http, prompt="x", size="1x1") == NO_NAME + "tiny-text, wide-text"


def test_the_default_model_decides_between_several(
    http: httpx.Client, redis_url: str, tmp_path: Path, other_text_card: ModelCard
) -> None:
    settings = Settings(redis_url=redis_url, artifacts=tmp_path, default_model="wide-text")
    with serving(settings) as url, httpx.Client(base_url=url) as client:
        assert model_of(client, prompt="x") == "wide-text"
        assert model_of(client, prompt="x", model="tiny-text") == "tiny-text"
        assert model_of(client, class_label=0) == "tiny-class"
        assert model_of(client, prompt="x", size="96x64") == "tiny-text"
