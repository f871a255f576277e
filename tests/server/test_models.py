import httpx
from redis import Redis

from jobs.cards import ModelCard, withdraw


def test_a_model_is_its_card_and_who_serves_it(http: httpx.Client, class_card: ModelCard) -> None:
    model = http.get("/v1/models/tiny-class").json()
    assert model["object"] == "model"
    assert (model["sizes"], model["workers_alive"]) == (["96x64"], 1)
    assert {name: model[name] for name in class_card.model_dump()} == class_card.model_dump()


def test_models_whose_workers_are_away_are_listed(http: httpx.Client, redis: Redis) -> None:
    withdraw(redis, "tiny-text", "w1")
    answer = http.get("/v1/models").json()
    assert answer["object"] == "list"
    assert [(model["id"], model["workers_alive"]) for model in answer["data"]] == [("tiny-class", 1), ("tiny-text", 0)]


def test_an_unknown_model_lists_those_there_are(http: httpx.Client) -> None:
    answer = http.get("/v1/models/none")
    assert answer.status_code == 404
    assert "tiny-class, tiny-text" in answer.json()["error"]["message"]
