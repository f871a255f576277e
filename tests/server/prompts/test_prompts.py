"""Enhancement and moderation of prompts over HTTP, with real services on real sockets."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.videos.store import VideoStore
from server.app import create_app
from tests.server.prompts.service import Service, running_service
from tests.server.serving import serving
from tests.waiting import wait_for

PROMPT = {"model": "tiny-text", "prompt": "a red circle"}
ENHANCED = {"choices": [{"message": {"role": "assistant", "content": " A red circle glides over the sea. \n"}}]}

Serve = Callable[..., httpx.Client]


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def serve(settings: Settings, redis: Redis, text_card: ModelCard, class_card: ModelCard) -> Iterator[Serve]:
    """Starts a server with some settings changed, and returns its client."""
    with ExitStack() as stack:

        def serve(**changes: Any) -> httpx.Client:
            url = stack.enter_context(serving(settings.model_copy(update=changes)))
            announce(redis, text_card, "w1", ttl_seconds=600)
            announce(redis, class_card, "w1", ttl_seconds=600)
            return stack.enter_context(httpx.Client(base_url=url, timeout=300))

        yield serve


@pytest.fixture
def enhancing(serve: Serve, service: Service) -> httpx.Client:
    service.answer = ENHANCED
    return serve(
        enhancer_url=f"{service.url}/v1/",
        enhancer_model="writer",
        enhancer_api_key=SecretStr("sk-secret"),
        enhancer_timeout_seconds=60.0,
    )


@pytest.fixture
def moderating(serve: Serve, service: Service) -> httpx.Client:
    service.answer = {"allow": True}
    return serve(moderation_url=f"{service.url}/check", moderation_timeout_seconds=60.0)


def test_an_enhanced_prompt_is_what_the_model_sees_and_both_are_kept(
    enhancing: httpx.Client, service: Service, store: VideoStore, text_card: ModelCard
) -> None:
    video = enhancing.post("/v1/videos", json=PROMPT | {"enhance_prompt": True}).json()
    assert video["prompt"] == "A red circle glides over the sea."
    assert (video["original_prompt"], video["prompt_enhancement"]) == ("a red circle", "enhanced")
    assert enhancing.get(f"/v1/videos/{video['id']}").json()["original_prompt"] == "a red circle"
    assert store.get(video["id"]).request.prompt == "A red circle glides over the sea."
    [sent] = service.received
    assert (sent["model"], sent["messages"][1]) == ("writer", {"role": "user", "content": "a red circle"})
    assert str(text_card.max_prompt_characters) in sent["messages"][0]["content"]
    assert service.paths == ["/v1/chat/completions"]
    assert service.authorizations == ["Bearer sk-secret"]


def test_a_prompt_is_enhanced_only_on_request_and_once_for_several_videos(
    enhancing: httpx.Client, service: Service
) -> None:
    video = enhancing.post("/v1/videos", json=PROMPT).json()
    assert (video["prompt"], video["original_prompt"], video["prompt_enhancement"]) == ("a red circle", None, None)
    assert service.received == []
    key = {"Idempotency-Key": "once"}
    body = PROMPT | {"enhance_prompt": True, "n": 3}
    videos = enhancing.post("/v1/videos", json=body, headers=key).json()["data"]
    assert {video["prompt"] for video in videos} == {"A red circle glides over the sea."}
    again = enhancing.post("/v1/videos", json=body, headers=key).json()["data"]
    assert [video["id"] for video in again] == [video["id"] for video in videos]
    assert len(service.received) == 1
    remix = enhancing.post(f"/v1/videos/{videos[0]['id']}/remix", json={"prompt": "a moon"}).json()
    assert (remix["prompt"], remix["original_prompt"], remix["prompt_enhancement"]) == ("a moon", None, None)
    form = enhancing.post("/v1/videos", data=PROMPT | {"enhance_prompt": "true"}).json()
    assert form["prompt_enhancement"] == "enhanced"


BROKEN: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    {"raw": b"<html>"},
    {"raw": b"[" * 100_000},
    {"raw": b"\xff\xfe"},
    {"answer": []},
    {"answer": {"choices": []}},
    {"answer": {"choices": [{"message": {"content": None}}]}},
    {"answer": {"choices": [{"message": {"content": "  "}}]}},
    {"answer": {"choices": [{"message": {"content": "x" * 5000}}]}},
    {"raw": b'{"choices": "' + b"x" * 2_000_000 + b'"}'},
    {"raw": b"short", "headers": {"Content-Length": "1000"}},
]


@pytest.mark.parametrize("fault", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_enhancer_delays_no_video(enhancing: httpx.Client, service: Service, fault: dict[str, Any]) -> None:
    for name, value in fault.items():
        setattr(service, name, value)
    answer = enhancing.post("/v1/videos", json=PROMPT | {"enhance_prompt": True})
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert (video["prompt"], video["original_prompt"], video["prompt_enhancement"]) == ("a red circle", None, "failed")


@pytest.mark.parametrize("way", ["silent", "dripping", "away"])
def test_a_slow_enhancer_and_one_that_is_away_are_given_up(serve: Serve, service: Service, way: str) -> None:
    service.gate = threading.Event() if way == "silent" else None
    service.drip = way == "dripping"
    url = "http://127.0.0.1:1/v1" if way == "away" else service.url
    http = serve(enhancer_url=url, enhancer_model="writer", enhancer_timeout_seconds=0.3)
    video = http.post("/v1/videos", json=PROMPT | {"enhance_prompt": True}).json()
    assert video["prompt_enhancement"] == "failed"


def test_enhancement_that_is_not_to_be_had_is_refused(http: httpx.Client, enhancing: httpx.Client) -> None:
    answer = http.post("/v1/videos", json=PROMPT | {"enhance_prompt": True})
    assert answer.status_code == 400
    assert "this server has no prompt enhancer" in answer.json()["error"]["message"]
    body = {"model": "tiny-class", "class_label": 1, "enhance_prompt": True}
    answer = enhancing.post("/v1/videos", json=body)
    assert answer.status_code == 400
    assert "tiny-class takes no prompt" in answer.json()["error"]["message"]


def test_an_enhancer_without_a_model_is_refused_at_the_start(settings: Settings) -> None:
    with pytest.raises(ValueError, match="FRAMEDIT_ENHANCER_MODEL is not set"):
        create_app(settings.model_copy(update={"enhancer_url": "http://127.0.0.1:1/v1"}))


def test_a_denied_prompt_is_refused_with_the_reason(
    moderating: httpx.Client, service: Service, store: VideoStore
) -> None:
    service.answer = {"allow": False, "reason": "no circles today"}
    answer = moderating.post("/v1/videos", json=PROMPT | {"negative_prompt": "a square"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("prompt_refused", "prompt")
    assert error["message"] == "the prompt was refused: no circles today"
    assert store.list(None, 10, "asc").records == []
    assert service.received == [
        {
            "prompt": "a red circle",
            "original_prompt": None,
            "negative_prompt": "a square",
            "model": "tiny-text",
            "key_id": None,
        }
    ]


def test_a_remix_is_moderated_and_a_class_label_is_not(moderating: httpx.Client, service: Service) -> None:
    video = moderating.post("/v1/videos", json=PROMPT).json()
    service.answer = {"allow": False}
    answer = moderating.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "a moon"})
    assert answer.json()["error"]["code"] == "prompt_refused"
    assert service.received[-1]["prompt"] == "a moon"
    body = {"model": "tiny-class", "class_label": 1}
    assert moderating.post("/v1/videos", json=body).status_code == 200
    assert len(service.received) == 2


def test_moderation_sees_the_enhanced_prompt_and_the_original(serve: Serve, service: Service) -> None:
    with running_service() as moderation:
        service.answer, moderation.answer = ENHANCED, {"allow": True}
        http = serve(enhancer_url=service.url, enhancer_model="writer", moderation_url=moderation.url)
        assert http.post("/v1/videos", json=PROMPT | {"enhance_prompt": True}).status_code == 200
        [sent] = moderation.received
    assert (sent["prompt"], sent["original_prompt"]) == ("A red circle glides over the sea.", "a red circle")


UNUSABLE: list[dict[str, Any]] = [
    {"status": 500},
    {"answer": {}},
    {"answer": {"allow": "yes"}},
    {"answer": [True]},
    {"raw": b"true, no JSON"},
    {"raw": b'{"allow": true, "padding": "' + b"x" * 2_000_000 + b'"}'},
]


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_moderation_without_a_usable_answer_follows_the_policy(
    serve: Serve, service: Service, store: VideoStore, policy: str
) -> None:
    http = serve(moderation_url=service.url, moderation_failure=policy)
    for fault in UNUSABLE:
        service.status, service.raw, service.answer = 200, None, None
        for name, value in fault.items():
            setattr(service, name, value)
        answer = http.post("/v1/videos", json=PROMPT)
        if policy == "open":
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "moderation_unavailable"
            assert answer.headers["retry-after"] == "5"
    assert len(store.list(None, 100, "asc").records) == (len(UNUSABLE) if policy == "open" else 0)


@pytest.mark.parametrize("way", ["silent", "dripping", "away"])
def test_moderation_that_is_slow_or_away_is_given_up(serve: Serve, service: Service, way: str) -> None:
    service.gate = threading.Event() if way == "silent" else None
    service.drip = way == "dripping"
    url = "http://127.0.0.1:1" if way == "away" else service.url
    http = serve(moderation_url=url, moderation_timeout_seconds=0.3)
    assert http.post("/v1/videos", json=PROMPT).status_code == 503


def test_a_slow_service_blocks_no_other_request_and_gets_eight_requests_at_a_time(
    serve: Serve, service: Service
) -> None:
    service.answer = {"allow": True}
    moderating = serve(moderation_url=service.url, moderation_timeout_seconds=300.0)
    video = moderating.post("/v1/videos", json=PROMPT).json()
    service.received.clear()
    service.gate = threading.Event()
    with ThreadPoolExecutor(24) as threads:
        posts = [threads.submit(moderating.post, "/v1/videos", json=PROMPT) for _ in range(24)]
        wait_for(lambda: len(service.received) == 8, "eight requests to the service")
        assert moderating.get(f"/v1/videos/{video['id']}").status_code == 200
        wait_for(lambda: sum(post.done() for post in posts) == 16, "the refusal of the others")
        assert len(service.received) == 8
        service.gate.set()
        statuses = sorted(post.result().status_code for post in posts)
    assert statuses == [200] * 8 + [503] * 16
