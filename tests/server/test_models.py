import httpx
from redis import Redis

from jobs.access.api_keys import KeyStore
from jobs.admission.worker_load import WorkerLoad, publish_load
from jobs.cards import ModelCard, withdraw
from jobs.model_commands import read_commands


def test_a_model_is_its_card_and_its_number_of_workers(http: httpx.Client, class_card: ModelCard) -> None:
    model = http.get("/v1/models/tiny-class").json()
    assert model["object"] == "model"
    assert (model["sizes"], model["workers_alive"]) == (["96x64"], 1)
    assert {name: model[name] for name in class_card.model_dump()} == class_card.model_dump()


def test_models_without_workers_are_listed(http: httpx.Client, redis: Redis) -> None:
    withdraw(redis, "tiny-text", "w1")
    answer = http.get("/v1/models").json()
    assert answer["object"] == "list"
    assert [(model["id"], model["workers_alive"]) for model in answer["data"]] == [("tiny-class", 1), ("tiny-text", 0)]


def test_an_unknown_model_lists_the_known_ones(http: httpx.Client) -> None:
    answer = http.get("/v1/models/none")
    assert answer.status_code == 404
    assert "tiny-class, tiny-text" in answer.json()["error"]["message"]


def test_a_model_says_how_many_workers_have_it_in_memory(http: httpx.Client, redis: Redis) -> None:
    for worker, state in (("w1", "loaded"), ("w2", "loaded"), ("w3", "loading"), ("w4", "unloaded")):
        publish_load(redis, worker, WorkerLoad(cost_per_second={}, models={"tiny-text": state}), 60)
    model = http.get("/v1/models/tiny-text").json()
    assert (model["workers_loaded"], model["workers_loading"], model["pinned"]) == (2, 1, False)
    other = http.get("/v1/models/tiny-class").json()
    assert (other["workers_loaded"], other["workers_loading"]) == (0, 0)


def test_commands_are_counted_and_a_pinned_model_is_not_unloaded(http: httpx.Client, redis: Redis) -> None:
    for number, action in enumerate(("load", "unload", "load"), start=1):
        assert http.post(f"/v1/models/tiny-text/{action}").status_code == 202
        command = read_commands(redis, ["tiny-text"])["tiny-text"]
        assert (command.number, command.action, command.pinned) == (number, action, False)
    assert http.post("/v1/models/tiny-text/pin").json()["pinned"] is True
    refused = http.post("/v1/models/tiny-text/unload")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_pinned")
    assert http.post("/v1/models/tiny-text/unpin").json()["pinned"] is False
    assert http.post("/v1/models/tiny-text/unload").status_code == 202
    assert http.post("/v1/models/none/load").status_code == 404


def test_only_keys_with_the_scope_admin_command_models(http: httpx.Client, redis: Redis) -> None:
    for scope, status in (("create", 403), ("admin", 202)):
        _, token = KeyStore(redis).create(scopes=(scope,))
        for action in ("load", "unload", "pin", "unpin"):
            answer = http.post(f"/v1/models/tiny-text/{action}", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
