import json
import logging
import re
from collections.abc import Iterator

import pytest

from cli.logs import configure_logging
from jobs.telemetry import log_context

logger = logging.getLogger("test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_json_line_has_the_context_of_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("worker", "info", "json")
    with log_context.about(request_id="r1", video_id="video_1"):
        logger.info("%s: started", "video_1", extra={"fields": {"code": 200}})
    logger.info("idle, “quoted”\nand on")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info",
        "process": "worker",
        "logger": "test",
        "message": "video_1: started",
        "request_id": "r1",
        "video_id": "video_1",
        "code": 200,
    }
    assert second["message"] == "idle, “quoted”\nand on"
    assert "request_id" not in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_blotted_out_of_stack_traces_too(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging("server", "info", log_format, ["hunter22", "a"])
    try:
        raise ConnectionError("redis://user:hunter22@db: refused")
    except ConnectionError:
        logger.exception("with Authorization: Bearer fd-key.123 and hunter22")
    written = capsys.readouterr().err
    assert "hunter22" not in written
    assert "fd-key.123" not in written
    assert "redis://user:***@db: refused" in written
    assert "Bearer ***" in written
    assert "Traceback" in written
