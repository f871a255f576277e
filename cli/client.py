"""A server, as the commands ask it: `POST /v1/videos` and what follows, over HTTP."""

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httpx

from cli.sse import Event, parse_events
from jobs.errors import FrameditError

Video = dict[str, Any]

_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_TRIES = 5
_LONGEST_WAIT_SECONDS = 30.0
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# An event stream says something every few seconds, if only that it is still there.
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class RefusedError(FrameditError):
    """The server will not do this however often it is asked; the message is its own."""

    code = "refused"
    exit_status = 2

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(FrameditError):
    """The server cannot be reached, or cannot do it now."""

    code = "unavailable"
    exit_status = 1


class Client:
    """Raises `RefusedError` and `UnavailableError`. A server that is busy is asked again, after as long as it says."""

    def __init__(self, server: str, api_key: str | None = None) -> None:
        self.server = server.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=self.server, headers=headers, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create(self, fields: Mapping[str, Any]) -> list[Video]:
        """The videos asked for, one unless `n` says more. Asked again under one key, none is made twice."""
        answer = self._ask("POST", "/v1/videos", json=fields, headers={"Idempotency-Key": str(uuid.uuid4())}).json()
        return list(answer["data"]) if answer["object"] == "list" else [answer]

    def get(self, video_id: str) -> tuple[Video, float]:
        """The video, and after how many seconds to ask again."""
        answer = self._ask("GET", f"/v1/videos/{video_id}")
        return answer.json(), int(answer.headers.get("openai-poll-after-ms", 1000)) / 1000

    def videos(self, limit: int) -> list[Video]:
        """The newest `limit`, or all there are."""
        found: list[Video] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"] and len(found) < limit:
            query = {"limit": min(100, limit - len(found)), **({"after": page["last_id"]} if found else {})}
            page = self._ask("GET", "/v1/videos", params=query).json()
            found += page["data"]
        return found

    def models(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/v1/models").json()["data"])

    def cancel(self, video_id: str) -> Video:
        return dict(self._ask("POST", f"/v1/videos/{video_id}/cancel").json())

    def delete(self, video_id: str) -> dict[str, Any]:
        return dict(self._ask("DELETE", f"/v1/videos/{video_id}").json())

    def download(self, video_id: str, path: Path) -> None:
        """Write the video's file to `path`, whole or not at all."""
        temporary = path.with_name(f".{path.name}.part")
        try:
            with self._http.stream("GET", f"/v1/videos/{video_id}/content") as answer:
                if answer.is_error:
                    answer.read()
                    raise _error(answer)
                with temporary.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
            temporary.replace(path)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        except OSError as error:
            raise RefusedError(f"cannot write {path}: {error.strerror}", 0) from None
        finally:
            temporary.unlink(missing_ok=True)

    def events(self, video_id: str, last_event_id: str = "") -> Iterator[Event]:
        """What happens to a video, until the server ends it. Raises `httpx.TransportError` when the connection does."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        url = f"/v1/videos/{video_id}/events"
        with self._http.stream("GET", url, headers=headers, timeout=_STREAM_TIMEOUT) as answer:
            if answer.is_error:
                answer.read()
                raise _error(answer)
            yield from parse_events(answer.iter_lines())

    def _ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        for attempt in range(1, _TRIES + 1):
            try:
                answer = self._http.request(method, path, **how)
            except httpx.TransportError as error:
                raise self._unreachable(error) from None
            if answer.status_code not in _BUSY or attempt == _TRIES:
                break
            wait = _retry_after(answer)
            print(f"the server is busy: trying again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)
        if answer.is_error:
            raise _error(answer)
        return answer

    def _unreachable(self, error: httpx.TransportError) -> UnavailableError:
        return UnavailableError(
            f"the server at {self.server} does not answer ({error or type(error).__name__}); "
            "name another with --server or FRAMEDIT_SERVER"
        )


def _retry_after(answer: httpx.Response) -> float:
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), _LONGEST_WAIT_SECONDS) if asked.isdigit() else 1.0


def _error(answer: httpx.Response) -> FrameditError:
    try:
        message = str(answer.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        message = f"the server answered {answer.status_code} {answer.reason_phrase}"
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        message += " (FRAMEDIT_API_KEY or --api-key holds the key)"
    if answer.is_server_error or answer.status_code in _BUSY:
        return UnavailableError(message)
    return RefusedError(message, answer.status_code)
