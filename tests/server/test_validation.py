"""Every bad value is a 400 that names the field, the value and what is allowed."""

import asyncio
import codecs
import time
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.types import Message

from jobs.errors import OverloadedError
from jobs.settings import Settings
from server.app import create_app
from server.middleware.body_limit import BodyLimit

FORM = "application/x-www-form-urlencoded"
TEXT = {"model": "tiny-text", "prompt": "a red circle"}
CLASS = {"model": "tiny-class", "class_label": 0}

BAD = [
    (TEXT, {"prompt": None}, "prompt", "prompt is missing.*for example 'a red circle moving"),
    (TEXT, {"prompt": "  \n"}, "prompt", "prompt is missing"),
    (TEXT, {"prompt": 3}, "prompt", "prompt is 3; it should be a valid string"),
    (TEXT, {"prompt": "x" * 101}, "prompt", "101 characters; tiny-text allows at most 100"),
    (TEXT, {"negative_prompt": "x" * 101}, "negative_prompt", "101 characters"),
    (TEXT, {"class_label": 0}, "class_label", "class_label is 0; tiny-text has no classes"),
    (TEXT, {"seed": -1}, "seed", "seed is -1; it should be greater than or equal to 0"),
    (TEXT, {"seed": 2**31}, "seed", "less than or equal to 2147483647"),
    (TEXT, {"seed": True}, "seed", "seed is True; it should be a valid integer"),
    (TEXT, {"seed": "7"}, "seed", "seed is '7'; it should be a valid integer"),
    (TEXT, {"seed": 7.5}, "seed", "valid integer"),
    (TEXT, {"num_inference_steps": 0}, "num_inference_steps", "greater than or equal to 1"),
    (TEXT, {"num_inference_steps": 251}, "num_inference_steps", "is 251; tiny-text allows at most 250"),
    (TEXT, {"guidance_scale": -0.1}, "guidance_scale", "greater than or equal to 0"),
    (TEXT, {"guidance_scale": 20.5}, "guidance_scale", r"is 20\.5; tiny-text allows at most 20"),
    (TEXT, {"sampler": "magic"}, "sampler", "'magic'; tiny-text allows ddim, euler"),
    (TEXT, {"num_frames": 17}, "num_frames", "is 17; tiny-text allows 2 to 16 frames"),
    (TEXT, {"num_frames": 1}, "num_frames", "2 to 16 frames"),
    (TEXT, {"fps": 0}, "fps", "greater than or equal to 1"),
    (TEXT, {"fps": 61}, "fps", "less than or equal to 60"),
    (TEXT, {"seconds": "4"}, "seconds", r"is '4'; .*at 8 fps are 0\.25 to 2 seconds"),
    (TEXT, {"seconds": "soon"}, "seconds", "is 'soon'; it should be a number above 0"),
    (TEXT, {"seconds": "nan"}, "seconds", "number above 0"),
    (TEXT, {"seconds": 0}, "seconds", "number above 0"),
    (TEXT, {"seconds": "1", "num_frames": 16}, "seconds", "is '1'; that is 8 frames at 8 fps, but num_frames is 16"),
    (TEXT, {"size": "64x64"}, "size", "is '64x64'; tiny-text allows 96x64"),
    (TEXT, {"n": 0}, "n", "greater than or equal to 1"),
    (TEXT, {"n": 11}, "n", "less than or equal to 10"),
    (TEXT, {"priority": "urgent"}, "priority", "is 'urgent'; it should be 'high', 'normal' or 'low'"),
    (TEXT, {"prompt": "x" * 101}, "prompt", "has 101 characters; tiny-text allows at most 100"),
    (TEXT, {"negative_prompt": "x" * 101}, "negative_prompt", "has 101 characters; tiny-text allows at most 100"),
    (TEXT, {"metadata": {"a": 1}}, "metadata", r"^metadata\['a'\] is 1; it should be a valid string"),
    (TEXT, {"metadata": ["a"]}, "metadata", "valid dictionary"),
    (TEXT, {"metadata": "a"}, "metadata", "valid dictionary"),
    (
        TEXT,
        {"metadata": {"shot": "x" * 513}},
        "metadata",
        r"^metadata\['shot'\] has 513 characters; it should have at most 512 characters$",
    ),
    (TEXT, {"metadata": {"k" * 65: "x"}}, "metadata", "^a key of metadata has 65 characters; it should .* at most 64"),
    (TEXT, {"metadata": {"": "x"}}, "metadata", "^a key of metadata is ''; it should have at least 1 character"),
    (TEXT, {"metadata": {str(i): "" for i in range(17)}}, "metadata", "it should have at most 16 items$"),
    (TEXT, {"colour": "red", "webhook": 1}, "colour", "unknown fields: colour, webhook; allowed are model, prompt,"),
    (TEXT, {"generator_device": "cpu"}, "generator_device", "is not supported; leave it out"),
    (TEXT, {"num_outputs_per_prompt": 2}, "num_outputs_per_prompt", "is not supported; send n"),
    (TEXT, {"extra_body": {"seed": 1}}, "extra_body", "is not supported; send its fields beside the others"),
    (CLASS, {"class_label": None}, "class_label", "class_label is missing; .*0..2: circle-left, circle-right, star-up"),
    (CLASS, {"class_label": 3}, "class_label", "is 3; tiny-class has the classes 0..2"),
    (CLASS, {"class_label": -1}, "class_label", "is -1"),
    (CLASS, {"class_label": "square"}, "class_label", "is 'square'"),
    (CLASS, {"class_label": "9" * 5000}, "class_label", "tiny-class has the classes"),
    (CLASS, {"class_label": True}, "class_label", "is True"),
    (CLASS, {"prompt": "a circle"}, "prompt", "is 'a circle'; tiny-class takes no prompt; send class_label"),
    (CLASS, {"negative_prompt": "a"}, "negative_prompt", "takes no prompts"),
    (CLASS, {"clean_caption": True}, "clean_caption", "takes no prompts"),
    (TEXT, {"model": 5}, "model", "valid string"),
]


@pytest.mark.parametrize(("fields", "changes", "param", "message"), BAD)
def test_a_bad_value_is_explained(
    http: httpx.Client, fields: dict[str, Any], changes: dict[str, Any], param: str, message: str
) -> None:
    answer = http.post("/v1/videos", json=fields | changes)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    with pytest.raises(ValueError, match=message):
        raise ValueError(error["message"])
    assert len(error["message"]) < 500
    assert http.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize("model", ["missing", "../tiny-text", "", "x" * 2000])
def test_an_unknown_model_lists_the_known_ones(http: httpx.Client, model: str) -> None:
    answer = http.post("/v1/videos", json=TEXT | {"model": model})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "tiny-class, tiny-text" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"[]", "JSON list; send an object"),
        (b'"x"', "JSON str"),
        (b"\xff\xfe", "not valid Unicode"),
        (b'{"model": "tiny-text", "prompt": "\\ud800"}', "not valid Unicode"),
        (b'{"guidance_scale": NaN}', "a number in it is not allowed"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "a number in it is not allowed"),
        (b'{"metadata": ' + b"[" * 20_000, "nested too deeply"),
    ],
)
def test_a_malformed_body_is_explained(http: httpx.Client, body: bytes, message: str) -> None:
    answer = http.post("/v1/videos", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "malformed_body"
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", ""])
def test_a_wrong_content_type_is_explained(http: httpx.Client, content_type: str) -> None:
    answer = http.post("/v1/videos", content=b"{}", headers={"content-type": content_type} if content_type else {})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


def test_json_that_was_sent_as_a_form_is_recognized(http: httpx.Client) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = http.post("/v1/videos", content=b'{"model": "tiny-text"}', headers=headers)
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("seed", (None, "x"))], "seed"),
        ([("guidance_scale", (None, "nan"))], "guidance_scale"),
        ([("seed", (None, "1")), ("seed", (None, "2"))], "seed"),
        ([("metadata[a]", (None, "1")), ("metadata", (None, "2"))], "metadata"),
        ([("metadata", (None, "1")), ("metadata[a]", (None, "2"))], "metadata[a]"),
        ([("metadata", (None, "[" * 20_000))], "metadata"),
        ([("metadata", (None, '{"a": "\\ud800"}'))], "metadata"),
        ([("input_reference", ("a.png", b"png", "image/png"))], "input_reference"),
    ],
)
def test_a_bad_form_is_explained(http: httpx.Client, parts: list[Any], param: str) -> None:
    whole = [(name, (None, value)) for name, value in TEXT.items()]
    answer = http.post("/v1/videos", files=whole + parts)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_truncated_form_is_explained(http: httpx.Client) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = http.post("/v1/videos", content=b"--b\r\nnonsense", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_client_disconnect_is_not_logged_as_an_error(settings: Settings) -> None:
    """The server logs an error of the application with a stack trace."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "query_string": b"", "headers": headers}
    app = create_app(settings)

    async def leave() -> None:
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(leave())
    assert sent[0]["status"] == 400


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused(http: httpx.Client, declared: bool) -> None:
    body = b'{"prompt": "' + b"x" * 100_000 + b'"}'
    answer = http.post(
        "/v1/videos",
        content=body if declared else iter([body[:50_000], body[50_000:]]),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert "100000 bytes" in answer.json()["error"]["message"]


def test_a_query_error_reads_like_a_body_error(http: httpx.Client) -> None:
    message = http.get("/v1/videos?limit=101").json()["error"]["message"]
    assert message == "limit is '101'; it should be less than or equal to 100"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=video_1", "after="])
def test_a_bad_query_is_explained(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/v1/videos?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize(
    "path", ["/v1/videos/video_1", "/v1/videos/..%2Fx", "/v1/videos/video_1/content", "/v1/models/x"]
)
def test_an_unknown_path_answers_an_envelope(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_wrong_method_answers_an_envelope(http: httpx.Client) -> None:
    answer = http.put("/v1/videos")
    assert answer.status_code == 405
    assert "PUT /v1/videos" in answer.json()["error"]["message"]


def test_every_method_of_a_path_is_allowed(http: httpx.Client) -> None:
    for path, methods in (("/v1/videos", "GET, POST"), ("/v1/videos/x", "DELETE, GET"), ("/livez", "GET")):
        answer = http.request("PATCH", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


@pytest.mark.parametrize("charset", ["punycode", "utf-7", "idna", "no-such-name", "latin-1", "utf-16"])
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_a_form_in_another_charset_is_refused_unread(http: httpx.Client, content_type: str, charset: str) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"a-" * 45_000 + b"\r\n--b--\r\n"
    started = time.monotonic()
    answer = http.post("/v1/videos", content=field, headers={"Content-Type": f"{content_type}; charset={charset}"})
    assert time.monotonic() - started < 2
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "unsupported_charset"
    assert charset in error["message"]
    assert "charset=utf-8" in error["message"]


def test_names_of_charsets_leave_nothing_behind(http: httpx.Client) -> None:
    """Python asks for an unknown codec once, and keeps its name for ever."""
    searched: list[str] = []

    def search(name: str) -> None:
        searched.append(name)

    codecs.register(search)
    try:
        with pytest.raises(LookupError):
            codecs.lookup("no-such-codec-0")
        for i in range(1, 20):
            http.post(
                "/v1/videos", data={"prompt": "x"}, headers={"Content-Type": f"{FORM}; charset=no-such-codec-{i}"}
            )
    finally:
        codecs.unregister(search)
    assert len(searched) == 1


def test_forms_in_utf_8_are_read(http: httpx.Client) -> None:
    for charset in ("", "; charset=utf-8", '; charset="UTF-8"'):
        body = urlencode({"model": "tiny-text", "prompt": "ein Kreis, größer"}).encode()
        answer = http.post("/v1/videos", content=body, headers={"Content-Type": FORM + charset})
        assert answer.json()["prompt"] == "ein Kreis, größer"


def test_large_bodies_in_progress_are_bounded_together() -> None:
    passed: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        passed.append(body)
        await asyncio.sleep(0)

    limit = BodyLimit(app, max_bytes=100_000, max_upload_bytes=100_000, max_total_bytes=150_000)

    async def request(num_bytes: int, hold: asyncio.Event) -> None:
        parts = iter([b"x" * num_bytes, b"y"])

        async def receive() -> Message:
            part = next(parts)
            if part == b"y":
                await hold.wait()
            return {"type": "http.request", "body": part, "more_body": part != b"y"}

        await limit({"type": "http", "headers": []}, receive, no_send)

    async def scenario() -> None:
        hold, go = asyncio.Event(), asyncio.Event()
        go.set()
        slow = asyncio.create_task(request(90_000, hold))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="too many large bodies"):
            await request(90_000, go)
        await request(10_000, go)  # a small one is read in any case
        hold.set()
        await slow
        await request(90_000, go)

    async def no_send(_: Message) -> None: ...

    asyncio.run(scenario())
    assert [len(body) for body in passed] == [10_001, 90_001, 90_001]
