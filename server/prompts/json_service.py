"""Bounded requests to a service of the operator, which may be slow, broken or away."""

import json
import time
from collections.abc import Mapping
from threading import BoundedSemaphore
from typing import Any

import httpx

_MAX_CONNECTIONS = 8
_MAX_WAIT_SECONDS = 1.0
_MAX_ANSWER_BYTES = 256 << 10


class ServiceError(Exception):
    """The service gave no answer that can be used. The message is for the log."""


class JsonService:
    """POSTs JSON objects to one URL. Its requests run in the threads of the routes, at most 8 at a time."""

    def __init__(self, url: str, timeout_seconds: float, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._slots = BoundedSemaphore(_MAX_CONNECTIONS)
        limits = httpx.Limits(max_connections=_MAX_CONNECTIONS)
        # The URL is the operator's: no proxy or password of the environment applies to it.
        self._http = httpx.Client(headers=headers, timeout=timeout_seconds, limits=limits, trust_env=False)

    def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object that the service answers.

        :raises ServiceError: for any other answer, and for one that is late or too large.
        """
        if not self._slots.acquire(timeout=min(_MAX_WAIT_SECONDS, self._timeout_seconds)):
            raise ServiceError(f"{_MAX_CONNECTIONS} requests are in progress")
        try:
            answer = json.loads(self._content(body))
        except httpx.HTTPError as error:
            raise ServiceError(str(error) or type(error).__name__) from None
        except (ValueError, RecursionError):
            raise ServiceError("the answer is not JSON") from None
        finally:
            self._slots.release()
        if not isinstance(answer, dict):
            raise ServiceError("the answer is not a JSON object")
        return answer

    def close(self) -> None:
        self._http.close()

    def _content(self, body: Mapping[str, Any]) -> bytes:
        give_up_at = time.monotonic() + self._timeout_seconds
        content = bytearray()
        with self._http.stream("POST", self._url, json=body) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ServiceError(f"the status is {answer.status_code}")
            for part in answer.iter_bytes():
                content += part
                if len(content) > _MAX_ANSWER_BYTES:
                    raise ServiceError(f"the answer has more than {_MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > give_up_at:
                    raise ServiceError(f"the answer takes longer than {self._timeout_seconds:g} s")
        return bytes(content)
