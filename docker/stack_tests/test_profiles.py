"""The profiles that bring an object store and monitoring.

MINIO_IMAGE and PROMETHEUS_IMAGE choose others than the official images, such as those of bucket.Dockerfile and of
prometheus.Dockerfile.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from .compose import REPOSITORY, Stack, run, wait_for

OUTAGE_SECONDS = 70
DASHBOARD = REPOSITORY / "docker/monitoring/grafana/dashboards/framedit.json"


@contextmanager
def running(project: str, offset: int, folder: Path, profile: str, **env: str) -> Iterator[Stack]:
    """The stack with a file .env of its own in `folder`."""
    for name in ("docker", "checkpoints"):
        (folder / name).symlink_to(REPOSITORY / name)
    port = int(os.environ.get("TEST_PORT", "18000")) + offset
    files = {"COMPOSE_FILE": str(REPOSITORY / "docker-compose.yml"), "COMPOSE_PROFILES": profile}
    stack = Stack(project, port, files | env, folder)
    try:
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def with_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With the file .env that docs/operations.md gives."""
    folder = tmp_path_factory.mktemp("s3")
    example = re.search(
        r"```\n(COMPOSE_PROFILES=s3\n.*?)```", (REPOSITORY / "docs/operations.md").read_text(), re.DOTALL
    )
    assert example is not None
    (folder / ".env").write_text(example[1])
    with running("framedit-s3", 2, folder, "s3") as stack:
        stack.up()
        yield stack


def content(stack: Stack, video_id: str) -> bytes:
    with stack.client() as http:
        answer = http.get(f"/v1/videos/{video_id}/content")
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    return answer.content


def test_videos_go_to_the_bucket_and_come_from_there(with_bucket: Stack) -> None:
    video_id = with_bucket.post()
    assert with_bucket.wait_until_ended(video_id)["status"] == "completed"
    whole = content(with_bucket, video_id)
    assert whole[4:8] == b"ftyp"
    with with_bucket.client() as http:
        part = http.get(f"/v1/videos/{video_id}/content", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, whole[4:8])
    listing = "import os; print(sum(len(files) for _, _, files in os.walk('/data/artifacts')))"
    command = ["exec", "-T", "worker", "/opt/framedit/bin/python", "-c", listing]
    assert with_bucket.compose(*command).strip() == "0"


def test_a_store_that_is_away_for_more_than_a_minute_delays_a_video_and_loses_nothing(with_bucket: Stack) -> None:
    [name] = with_bucket.names("minio")
    network = f"{with_bucket.project}_outside"
    run("docker", "network", "disconnect", network, name)
    left_at = time.monotonic()
    try:
        video_id = with_bucket.post()
        wait_for(lambda: "trying again" in with_bucket.compose("logs", "worker"), "a worker that misses the store")
        while time.monotonic() - left_at < OUTAGE_SECONDS:
            assert with_bucket.get(video_id)["status"] == "in_progress"
            time.sleep(1)
    finally:
        run("docker", "network", "connect", "--alias", "minio", network, name)
    assert with_bucket.wait_until_ended(video_id, 60)["status"] == "completed"
    assert content(with_bucket, video_id)[4:8] == b"ftyp"
    log = with_bucket.compose("logs", "--no-color", "worker")
    assert log.count(f"{video_id}: started") == log.count(f"{video_id}: completed") == 1


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Prometheus, without Grafana."""
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / ".env").touch()
    with running("framedit-monitoring", 3, folder, "", FRAMEDIT_ARTIFACTS="/data/artifacts") as stack:
        stack.compose("--profile", "monitoring", "up", "-d", "--no-build", "prometheus", "api", "worker")
        stack.wait_for_workers("demo-class", 1)
        yield stack


def query(stack: Stack, expression: str) -> list[dict[str, Any]]:
    """The series that Prometheus answers with. What cannot be parsed is an error of HTTP."""
    url = f"http://prometheus:9090/api/v1/query?{urlencode({'query': expression})}"
    answer = json.loads(stack.ask_inside(url))
    assert answer["status"] == "success", answer
    assert not answer.get("warnings"), answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def expressions() -> list[str]:
    """Those of the dashboard, with what Grafana would put in for its variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [text.replace("$model", ".*").replace("$__rate_interval", "5m") for text in found]


def test_prometheus_takes_what_it_is_given(monitored: Stack) -> None:
    wait_for(lambda: [s["value"][1] for s in query(monitored, 'up{job="framedit"}')] == ["1"], "the target to be up")


def test_every_panel_of_the_dashboard_has_something_to_show(monitored: Stack) -> None:
    wait_for(lambda: query(monitored, "framedit_workers_alive"), "the first look of Prometheus")

    def make_some() -> None:
        """Counters begin with their first event; a rate needs two looks at them."""
        cancelled = monitored.post()
        with monitored.client() as http:
            assert http.post(f"/v1/videos/{cancelled}/cancel").status_code == 200
            assert http.get("/v1/videos/video_of_nobody").status_code == 404
        assert monitored.wait_until_ended(monitored.post())["status"] == "completed"

    make_some()
    wait_for(lambda: query(monitored, "framedit_video_seconds_count"), "the first of them to be seen")
    make_some()

    def has_number(text: str) -> bool:
        return any(series["value"][1] != "NaN" for series in query(monitored, text))

    assert len(expressions()) > 10
    for text in expressions():
        wait_for(lambda text=text: has_number(text), f"a number for {text}", 60)
