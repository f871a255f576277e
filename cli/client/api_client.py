"""A client of the API, over HTTP."""

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from cli.client.source import Source
from cli.client.sse import Event, parse_events
from cli.result_file import with_suffix_of
from jobs.errors import FrameditError

Video = dict[str, Any]

_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_TRIES = 5
_LONGEST_WAIT_SECONDS = 30.0
# Each of the threads that share a client may hold an event stream.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# An event stream sends an event or a heartbeat every few seconds.
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class RefusedError(FrameditError):
    """The server refused the request, and would refuse it again. The message is the server's."""

    code = "refused"
    exit_status = 2

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(FrameditError):
    """The server is unreachable, or cannot handle the request now."""

    code = "unavailable"
    exit_status = 1


class Client:
    """Raises `RefusedError` and `UnavailableError`. Requests to a busy server are retried after its `Retry-After`.

    Several threads may share a client.
    """

    def __init__(self, server: str, api_key: str | None = None, tries: int = _TRIES) -> None:
        self.server = server.rstrip("/")
        self._tries = tries
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=self.server, headers=headers, timeout=_TIMEOUT, limits=_LIMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create(
        self, fields: Mapping[str, Any], source: Source | None = None, idempotency_key: str | None = None
    ) -> list[Video]:
        """Create `n` videos, by default one. The idempotency key keeps a retry from creating them twice."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        if source is None:
            answer = self._request("POST", "/v1/videos", json=fields, headers=headers).json()
        else:
            content = source.content(fields)
            answer = self._request("POST", source.path, headers=headers, **content).json()
        return list(answer["data"]) if answer["object"] == "list" else [answer]

    def get(self, video_id: str) -> tuple[Video, float]:
        """Return the video, and the number of seconds until the next poll."""
        answer = self._request("GET", f"/v1/videos/{video_id}")
        return answer.json(), int(answer.headers.get("openai-poll-after-ms", 1000)) / 1000

    def videos(self, limit: int) -> list[Video]:
        """Return the newest `limit` videos."""
        found: list[Video] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"] and len(found) < limit:
            query = {"limit": min(100, limit - len(found)), **({"after": page["last_id"]} if found else {})}
            page = self._request("GET", "/v1/videos", params=query).json()
            found += page["data"]
        return found

    def models(self) -> list[dict[str, Any]]:
        return list(self._request("GET", "/v1/models").json()["data"])

    def command_model(self, model: str, action: str) -> dict[str, Any]:
        """Load, unload, pin or unpin a model."""
        return dict(self._request("POST", f"/v1/models/{quote(model, safe='')}/{action}").json())

    def cancel(self, video_id: str) -> Video:
        return dict(self._request("POST", f"/v1/videos/{video_id}/cancel").json())

    def delete(self, video_id: str) -> dict[str, Any]:
        return dict(self._request("DELETE", f"/v1/videos/{video_id}").json())

    def download(self, video_id: str, path: Path) -> Path:
        """Write the video's file to `path`, complete or not at all, and return the path.

        The path gets the suffix of the file's format, in place of that of another format.
        """
        temporary = path.with_name(f".{path.name}.part")
        try:
            with self._http.stream("GET", f"/v1/videos/{video_id}/content") as answer:
                if answer.is_error:
                    answer.read()
                    raise _error(answer)
                path = with_suffix_of(path, answer.headers.get("content-type", ""))
                with temporary.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
            temporary.replace(path)
            return path
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        except OSError as error:
            raise RefusedError(f"cannot write {path}: {error.strerror}", 0) from None
        finally:
            temporary.unlink(missing_ok=True)

    def events(self, video_id: str, last_event_id: str = "") -> Iterator[Event]:
        """Yield the events of a video until its end. Raises `httpx.TransportError` if the connection breaks."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        url = f"/v1/videos/{video_id}/events"
        with self._http.stream("GET", url, headers=headers, timeout=_STREAM_TIMEOUT) as answer:
            if answer.is_error:
                answer.read()
                raise _error(answer)
            yield from parse_events(answer.iter_lines())

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in range(1, self._tries + 1):
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                raise self._unreachable(error) from None
            if answer.status_code not in _BUSY or attempt == self._tries:
                break
            wait = _retry_after(answer)
            print(f"the server is busy, retrying in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)
        if answer.is_error:
            raise _error(answer)
        return answer

    def _unreachable(self, error: httpx.TransportError) -> UnavailableError:
        return UnavailableError(
            f"the server at {self.server} does not answer ({error or type(error).__name__}); "
            "set the URL with --server or FRAMEDIT_SERVER"
        )


def _retry_after(answer: httpx.Response) -> float:
    seconds = answer.headers.get("retry-after", "")
    return min(float(seconds), _LONGEST_WAIT_SECONDS) if seconds.isdigit() else 1.0


def _error(answer: httpx.Response) -> FrameditError:
    try:
        message = str(answer.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        message = f"the server answered {answer.status_code} {answer.reason_phrase}"
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        message += " (set the API key with FRAMEDIT_API_KEY or --api-key)"
    if answer.is_server_error or answer.status_code in _BUSY:
        return UnavailableError(message)
    return RefusedError(message, answer.status_code)
