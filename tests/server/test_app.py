import logging
import re
import subprocess
import sys
from http import HTTPMethod

import httpx
import pytest

from jobs.settings import Settings
from jobs.telemetry import log_context
from jobs.videos.store import VideoStore
from server.app import create_app
from tests.waiting import wait_for

FOREIGN = ("torch", "diffusers", "transformers", "numpy", "models.config", "worker")


def test_the_api_starts_without_torch() -> None:
    code = f"import sys, server.app; print([name for name in {FOREIGN} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_a_server_without_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("FRAMEDIT_REDIS_URL", raising=False)
    with pytest.raises(ValueError, match="set REDIS_URL"):
        create_app(Settings())


def test_the_openapi_document_matches_the_routes(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    assert "422" not in str(schema)
    assert "$defs" not in str(schema), "a reference that no reader of the description can follow"
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    operations = [
        (path, method, operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if method.upper() in HTTPMethod.__members__
    ]
    assert operations
    for path, method, operation in operations:
        errors = {code: answer for code, answer in operation["responses"].items() if code >= "400"}
        assert errors or path in ("/livez", "/health"), (path, method)
        for answer in errors.values():
            assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorEnvelope")


def test_a_body_is_described_as_json_and_as_a_form(http: httpx.Client) -> None:
    body = http.get("/openapi.json").json()["paths"]["/v1/videos"]["post"]["requestBody"]
    assert set(body["content"]) == {"application/json", "multipart/form-data", "application/x-www-form-urlencoded"}
    described = body["content"]["application/json"]["schema"]["properties"]
    assert described["n"]["default"] == 1
    assert described["n"]["maximum"] == 10
    refused = http.post("/v1/videos", json={"x": 1}).json()["error"]["message"]
    assert refused.endswith(f"allowed are {', '.join(described)}")


def test_a_request_has_an_id_that_its_video_keeps(http: httpx.Client, store: VideoStore) -> None:
    body = {"model": "tiny-text", "prompt": "x"}
    named = http.post("/v1/videos", json=body, headers={"X-Request-Id": "mine-1"})
    assert named.headers["x-request-id"] == "mine-1"
    assert store.get(named.json()["id"]).request_id == "mine-1"
    for bad in ("", "a b", "x" * 65, "a\tb"):
        drawn = http.post("/v1/videos", json=body, headers={"X-Request-Id": bad})
        assert re.fullmatch("[0-9a-f]{16}", drawn.headers["x-request-id"])
        assert store.get(drawn.json()["id"]).request_id == drawn.headers["x-request-id"]


def test_no_answer_names_the_software_or_lets_browsers_guess_its_type(http: httpx.Client) -> None:
    for path in ("/", "/livez", "/v1/videos", "/nothing", f"/v1/videos/video_{0:032x}/content"):
        answer = http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "server" not in answer.headers, path


def test_every_operation_documents_an_internal_error(http: httpx.Client) -> None:
    for path, item in http.get("/openapi.json").json()["paths"].items():
        assert all("500" in operation["responses"] for operation in item.values()), path


def test_requests_that_change_something_are_logged_with_their_video(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="server.middleware.request_log")
    seen: list[tuple[str, dict[str, str]]] = []

    def see(record: logging.LogRecord) -> bool:
        if record.name == "server.middleware.request_log":
            seen.append((record.getMessage(), dict(log_context.current())))
        return True

    caplog.handler.addFilter(see)
    video_id = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}).json()["id"]
    http.get(f"/v1/videos/{video_id}")
    answer = http.delete(f"/v1/videos/{video_id}")
    wait_for(lambda: len(seen) == 2, "the line of the last request: it is written once its answer has been sent")
    assert [line for line, _ in seen] == ["POST /v1/videos 200", f"DELETE /v1/videos/{video_id} 200"]
    assert seen[-1][1] == {"request_id": answer.headers["x-request-id"], "video_id": video_id}


def test_the_docs_page_is_complete_and_loads_nothing(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for path, item in http.get("/openapi.json").json()["paths"].items():
        assert all(f"<h2>{method.upper()} {path}</h2>" in page.text for method in item)
    assert "webhook_url" in page.text
    assert "integer, from <code>1</code> to <code>10</code>, default <code>1</code>" in page.text
    assert page.text.index("POST /v1/videos<") < page.text.index("GET /v1/models<")
    assert "://" not in page.text.replace("https://example.com", "")
    assert http.get("/redoc").status_code == 404


def test_an_internal_error_names_the_request_and_no_details(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr("server.routes.models.known_models", fail)
    answer = http.get("/v1/models", headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-1")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


def test_a_path_cannot_write_lines_of_its_own_into_the_log(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="server.middleware.request_log")
    http.get("/nothing%0a2026-01-01 ERROR forged%1b[2J%00")
    http.get("/" + "x" * 20_000)

    def logged() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "server.middleware.request_log"]

    wait_for(lambda: len(logged()) == 2, "the log lines, which follow the answers")
    messages = logged()
    assert "GET /nothing\\n2026-01-01 ERROR forged\\x1b[2J\\x00 404" in messages[0]
    assert all(message.isprintable() and len(message) < 400 for message in messages)
    assert "(20001 characters)" in messages[1]
