"""Maps exceptions to HTTP responses: the only place with the status codes of errors and the shape of their body."""

import logging
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from jobs import errors
from jobs.admission.redis_memory import full_job_store, is_out_of_memory
from server.http.logged_path import logged_path

RETRY_AFTER_SECONDS = 2
VIDEO_ID_HEADER = "X-Video-Id"

_log = logging.getLogger(__name__)


ERROR_TYPES = (
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
)


class ErrorDetail(BaseModel):
    """The error."""

    message: str = Field(description="What was wrong, what is allowed, what to do")
    type: str = Field(description=f"One of {', '.join(ERROR_TYPES)}")
    param: str | None = Field(description="The field of the request that was wrong")
    code: str | None = Field(description="Stable identifier of the error, for programs")


class ErrorEnvelope(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class BodyTooLargeError(errors.FrameditError):
    """A request body above the limit."""

    code = "body_too_large"


class RangeNotSatisfiableError(errors.FrameditError):
    """A range that starts after the end of the file."""

    code = "range_not_satisfiable"

    def __init__(self, value: str, num_bytes: int) -> None:
        super().__init__(
            f"the range {value!r} is outside the file, which has {num_bytes} bytes; request a range within it"
        )
        self.num_bytes = num_bytes


class StillRunningError(errors.FrameditError):
    """A video that takes longer than a request may wait."""

    code = "timeout"

    def __init__(self, video_id: str, why: str) -> None:
        super().__init__(f"{video_id} is not completed {why}; generation continues, poll GET /v1/videos/{video_id}")
        self.video_id = video_id


class NotReadyError(errors.FrameditError):
    """A component that the server needs does not work."""

    code = "not_ready"


# The first class that matches decides.
_STATUS: Mapping[type[errors.FrameditError], HTTPStatus] = {
    errors.InvalidRequestError: HTTPStatus.BAD_REQUEST,
    errors.AuthenticationError: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDeniedError: HTTPStatus.FORBIDDEN,
    errors.RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.IdempotencyConflictError: HTTPStatus.CONFLICT,
    errors.ModelPinnedError: HTTPStatus.CONFLICT,
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.VideoNotReadyError: HTTPStatus.CONFLICT,
    errors.VideoFailedError: HTTPStatus.NOT_FOUND,
    errors.VideoGoneError: HTTPStatus.GONE,
    errors.TooManyQueuedError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModerationUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ArtifactStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    RangeNotSatisfiableError: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    StillRunningError: HTTPStatus.GATEWAY_TIMEOUT,
}


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


# Headers that every response with this status has, and their descriptions.
_HEADERS: Mapping[HTTPStatus, Mapping[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "The authentication scheme: `Bearer`"},
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {"Content-Range": "The size of the file: `bytes */size`"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "Seconds to wait before the next attempt"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "Seconds to wait before the next attempt"},
    HTTPStatus.GATEWAY_TIMEOUT: {"Location": "The URL of the video", VIDEO_ID_HEADER: "The id of the video"},
}


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route that can answer with these errors."""
    return {
        int(status): {
            "model": ErrorEnvelope,
            "description": status.phrase,
            "headers": described_headers(_HEADERS.get(status, {}), required=True),
        }
        for status in statuses
    }


def described_headers(descriptions: Mapping[str, str], required: bool = False) -> dict[str, Any]:
    """The OpenAPI `headers` of a response."""
    return {
        name: {"schema": {"type": "string"}, "description": description, "required": required}
        for name, description in descriptions.items()
    }


def install(app: FastAPI) -> None:
    """Answer every exception of the application with an `ErrorEnvelope`."""
    app.add_exception_handler(errors.FrameditError, _on_framedit_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RedisError, _on_redis_error)
    app.add_exception_handler(ClientDisconnect, _on_client_disconnect)
    app.add_exception_handler(Exception, _on_unexpected_error)


def _answer(
    status: int,
    message: str,
    code: str | None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    body = ErrorEnvelope(error=ErrorDetail(message=message, type=kind, param=param, code=code))
    return JSONResponse(body.model_dump(), status, dict(headers or {}))


def _on_framedit_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.FrameditError)
    status = next((code for cls, code in _STATUS.items() if isinstance(error, cls)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= 500 and not isinstance(error, errors.TryLaterError | StillRunningError):
        traced = error if status == HTTPStatus.INTERNAL_SERVER_ERROR else None
        _log.error(
            "%s %s: %s", request.method, logged_path(request.url.path), " <- ".join(_causes(error)), exc_info=traced
        )
    return _answer(status, error.message, error.code, getattr(error, "param", None), _headers(status, error))


def _causes(error: BaseException | None) -> Iterator[str]:
    """The error and its causes: their texts may name hosts and paths, which the response does not."""
    while error is not None:
        yield str(error)
        error = error.__cause__


def _headers(status: int, error: errors.FrameditError) -> dict[str, str]:
    match error:
        case errors.TryLaterError():
            return {"Retry-After": str(error.retry_after_seconds)}
        case errors.AuthenticationError():
            return {"WWW-Authenticate": "Bearer"}
        case errors.IdempotencyConflictError() | errors.ModelPinnedError():
            # The official client retries a 409 unless this header forbids it.
            return {"x-should-retry": "false"}
        case StillRunningError():
            # A retry of the official client would create another video.
            location = {"Location": f"/v1/videos/{error.video_id}", VIDEO_ID_HEADER: error.video_id}
            return location | {"x-should-retry": "false"}
        case RangeNotSatisfiableError():
            return {"Content-Range": f"bytes */{error.num_bytes}"}
    if status in (HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    param = str(fault["loc"][-1])
    message = f"{param} is {fault['input']!r}; {fault['msg'].replace('Input should', 'it should')}"
    return _answer(HTTPStatus.BAD_REQUEST, message, "invalid_value", param)


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    message, headers = error.detail, dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request)) or headers["Allow"]
    if error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        message = f"there is no route {request.method} {logged_path(request.url.path)}; /docs lists all routes"
    return _answer(error.status_code, message, code, headers=headers)


def _methods(request: Request) -> list[str]:
    """All methods of a path. Starlette itself names only those of the first route that matches."""
    for template, item in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.url.path):
            return sorted(method.upper() for method in item)
    return []


def _on_redis_error(request: Request, error: Exception) -> JSONResponse:
    if is_out_of_memory(error):
        return _on_framedit_error(request, full_job_store())
    _log.error("%s %s: Redis unavailable: %s", request.method, logged_path(request.url.path), error)
    message = (
        f"the job store does not answer; try again in {RETRY_AFTER_SECONDS} s, "
        "with an Idempotency-Key if the request creates videos"
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, message, "job_store_unavailable", headers=headers)


def _on_client_disconnect(request: Request, error: Exception) -> JSONResponse:
    # The client cannot receive this response. It keeps a disconnect from being logged as an internal error.
    return _answer(HTTPStatus.BAD_REQUEST, "the connection was closed before the body was complete", "malformed_body")


def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the exception again after this response, so that uvicorn logs its traceback.
    message = "internal error; the log of the server has the details under the request id in X-Request-Id"
    # This response bypasses all middleware, also the one that sets this header.
    # Outside of all middleware, which sets these headers otherwise.
    headers = {"X-Request-Id": request.scope.get("request_id", ""), "X-Content-Type-Options": "nosniff"}
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, message, "internal_error", headers=headers)
