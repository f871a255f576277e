import socket
from pathlib import Path

import httpx
import pytest

from jobs.settings import Settings

from .serving import serving


def test_a_server_that_works(http: httpx.Client) -> None:
    for path in ("/livez", "/readyz"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_names_every_part_that_does_not_work(tmp_path: Path) -> None:
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
