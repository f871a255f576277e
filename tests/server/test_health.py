import socket
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from server.readiness import CACHE_SECONDS, Readiness
from tests.server.serving import serving


def test_a_healthy_server(http: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/health"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readiness_is_checked_at_most_once_in_two_seconds(redis: Redis, tmp_path: Path) -> None:
    now = 100.0
    folder = tmp_path / "artifacts"
    folder.mkdir()
    readiness = Readiness(redis, ArtifactStore(folder), clock=lambda: now)
    assert not readiness.faults()
    folder.rmdir()
    now += CACHE_SECONDS - 0.1
    assert not readiness.faults()
    now += 0.1
    [fault] = readiness.faults()
    assert "artifact store cannot be written" in fault
    folder.mkdir()
    assert readiness.faults() == [fault]
    now += CACHE_SECONDS
    assert not readiness.faults()


def test_readiness_names_every_failing_component(tmp_path: Path) -> None:
    blocker = tmp_path / "a-file"
    blocker.touch()
    settings = Settings(redis_url=f"unix://{tmp_path}/none.sock", artifacts=blocker / "artifacts")
    with serving(settings) as url:
        assert httpx.get(f"{url}/livez").status_code == 200
        answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    message = answer.json()["error"]["message"]
    assert "redis does not answer" in message
    assert "artifact store cannot be written" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_without_redis_every_route_answers_503(tmp_path: Path, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not silent:
            listener.close()
        settings = Settings(
            redis_url=f"redis://127.0.0.1:{port}", artifacts=tmp_path / "artifacts", redis_timeout_seconds=0.2
        )
        video_id = f"video_{0:032x}"
        with serving(settings) as url, httpx.Client(base_url=url) as http:
            for method, path in (
                ("POST", "/v1/videos"),
                ("GET", "/v1/videos"),
                ("GET", f"/v1/videos/{video_id}"),
                ("GET", f"/v1/videos/{video_id}/content"),
                ("DELETE", f"/v1/videos/{video_id}"),
                ("GET", "/v1/models"),
            ):
                body = {"model": "tiny-text", "prompt": "x"} if method == "POST" else None
                answer = http.request(method, path, json=body)
                assert answer.status_code == 503, path
                assert int(answer.headers["retry-after"]) > 0
                assert answer.json()["error"]["code"] == "job_store_unavailable"
                assert "Traceback" not in answer.text
