"""The Prometheus metrics, and the dashboard that shows them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from jobs.settings import Settings
from jobs.telemetry.metrics import Metrics, Publisher, report_device
from tests.server.serving import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server_url(settings: Settings, redis_url: str) -> Iterator[str]:
    """A server of its own for each test: one that has counted before would bring that into the emptied database."""
    with serving(settings) as url:
        yield url


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def requests_counted(http: httpx.Client, **labels: str) -> float:
    return samples(http.get("/metrics").text).get(("framedit_http_requests_total", frozenset(labels.items())), 0)


def test_requests_are_counted_by_route_template(http: httpx.Client) -> None:
    labels = {"route": "/v1/videos/{video_id}", "method": "GET", "code": "404"}
    before = requests_counted(http, **labels)
    other_before = requests_counted(http, route="other", method="GET", code="404")
    for index in range(3):
        assert http.get(f"/v1/videos/video_{index:032x}").status_code == 404
        assert http.get(f"/nowhere/{index}").status_code == 404
    assert requests_counted(http, **labels) == before + 3
    assert requests_counted(http, route="other", method="GET", code="404") == other_before + 3


@pytest.fixture
def second_url(settings: Settings) -> Iterator[str]:
    with serving(settings) as url:
        yield url


def test_any_server_reports_the_metrics_of_all(http: httpx.Client, second_url: str) -> None:
    labels = {"route": "/v1/models", "method": "GET", "code": "200"}
    with httpx.Client(base_url=second_url, timeout=10) as second:
        before = requests_counted(http, **labels)
        second.get("/v1/models")
        http.get("/v1/models")
        requests_counted(second, **labels)  # what has the second one publish at once
        assert requests_counted(http, **labels) == requests_counted(second, **labels) == before + 2


def test_the_metrics_are_well_formed(http: httpx.Client, finish: Callable[[str, bytes], None], redis: Redis) -> None:
    finish(http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"], b"mp4")
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    assert found["framedit_videos_total", frozenset({("model", "tiny-text"), ("status", "completed")})] == 1
    bounds = re.findall(r'http_request_seconds_bucket\{le="(.*?)",method="POST",route="/v1/videos"\}', answer.text)
    assert bounds[-1] == "+Inf"
    assert list(map(float, bounds)) == sorted(map(float, bounds))


CONTRACT = {
    "framedit_videos_total",
    "framedit_queue_depth",
    "framedit_queue_wait_seconds",
    "framedit_denoise_step_seconds",
    "framedit_batch_rows",
    "framedit_stage_seconds",
    "framedit_video_seconds",
    "framedit_http_requests_total",
    "framedit_http_request_seconds",
    "framedit_workers_alive",
    "framedit_device_memory_bytes",
}


@pytest.fixture
def page(http: httpx.Client, redis: Redis) -> str:
    """A scrape after everything that is counted has happened."""
    worker = Metrics()
    worker.queue_wait.observe(1)
    worker.video_seconds.labels("tiny-text").observe(1)
    worker.stage_seconds.labels("denoise").observe(1)
    worker.step_seconds.labels("tiny-text", "2").observe(1)
    worker.batch_rows.observe(2)
    Publisher(redis, worker).publish()
    report_device(redis, "w1", 1, ttl_seconds=600)
    video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
    http.post(f"/v1/videos/{video_id}/cancel")
    return http.get("/metrics").text


def test_the_dashboard_uses_existing_metrics(page: str) -> None:
    there = {name for name, _ in samples(page)}
    dashboards = [json.loads(path.read_text()) for path in (ROOT / "docker/monitoring").rglob("*.json")]
    expressions = [
        target["expr"] for board in dashboards for panel in board["panels"] for target in panel.get("targets", [])
    ]
    shown = {name for expression in expressions for name in re.findall(r"framedit_\w+", expression)}
    assert shown <= there
    # And the other way round: nothing of the contract is left in the dark.
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} >= CONTRACT


def test_every_metric_is_documented_with_its_labels(page: str) -> None:
    table = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(framedit_\w+)` \|([^|]*)\|", table, re.MULTILINE)
    documented = {name: set(re.findall(r"\w+", labels)) for name, labels in rows}
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented == found
