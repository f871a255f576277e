"""Exceptions -> HTTP. The only place that knows status codes of errors and the shape of their body."""

import logging
import re
from collections.abc import Mapping
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
    message: str = Field(description="For people: what was got, what is allowed, what to do")
    type: str = Field(description=f"One of {', '.join(ERROR_TYPES)}")
    param: str | None = Field(description="The field of the request that is at fault")
    code: str | None = Field(description="For programs")


class ErrorEnvelope(BaseModel):
    error: ErrorDetail


class BodyTooLargeError(errors.FrameditError):
    code = "body_too_large"


class RangeNotSatisfiableError(errors.FrameditError):
    code = "range_not_satisfiable"

    def __init__(self, asked: str, num_bytes: int) -> None:
        super().__init__(f"the range {asked!r} is outside the file, which has {num_bytes} bytes")
        self.num_bytes = num_bytes


class StillRunningError(errors.FrameditError):
    """The video takes longer than a client can be let wait."""

    code = "timeout"

    def __init__(self, video_id: str, why: str) -> None:
        super().__init__(f"{video_id} is not done {why}; it goes on: ask GET /v1/videos/{video_id} for it")
        self.video_id = video_id


class NotReadyError(errors.FrameditError):
    """Parts that the server needs do not work."""

    code = "not_ready"


# The first class that an exception is an instance of decides.
_STATUS: Mapping[type[errors.FrameditError], HTTPStatus] = {
    errors.InvalidRequestError: HTTPStatus.BAD_REQUEST,
    errors.AuthenticationError: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDeniedError: HTTPStatus.FORBIDDEN,
    errors.RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.IdempotencyConflictError: HTTPStatus.CONFLICT,
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.VideoNotReadyError: HTTPStatus.CONFLICT,
    errors.VideoFailedError: HTTPStatus.NOT_FOUND,
    errors.VideoGoneError: HTTPStatus.GONE,
    errors.TooManyQueuedError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ArtifactStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    RangeNotSatisfiableError: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    StillRunningError: HTTPStatus.GATEWAY_TIMEOUT,
}


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


# What such an answer always has.
_HEADERS: Mapping[HTTPStatus, Mapping[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "How to say who asks: `Bearer`"},
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {"Content-Range": "How long the file is: `bytes */length`"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "Seconds after which to ask again"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "Seconds after which to ask again"},
    HTTPStatus.GATEWAY_TIMEOUT: {"Location": "Where to ask for the video", VIDEO_ID_HEADER: "Its id"},
}


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors, for OpenAPI."""
    return {
        int(status): {
            "model": ErrorEnvelope,
            "description": status.phrase,
            "headers": described_headers(_HEADERS.get(status, {}), required=True),
        }
        for status in statuses
    }


def described_headers(descriptions: Mapping[str, str], required: bool = False) -> dict[str, Any]:
    """The `headers` of an answer, for OpenAPI."""
    return {
        name: {"schema": {"type": "string"}, "description": description, "required": required}
        for name, description in descriptions.items()
    }


def install(app: FastAPI) -> None:
    """Make every error of the application an envelope, never a stack trace."""
    app.add_exception_handler(errors.FrameditError, _on_framedit_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RedisError, _on_redis_error)
    app.add_exception_handler(ClientDisconnect, _on_client_disconnect)
    app.add_exception_handler(Exception, _on_anything_else)


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
        _log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    return _answer(status, error.message, error.code, getattr(error, "param", None), _headers(status, error))


def _headers(status: int, error: errors.FrameditError) -> dict[str, str]:
    match error:
        case errors.TryLaterError():
            return {"Retry-After": str(error.retry_after_seconds)}
        case errors.AuthenticationError():
            return {"WWW-Authenticate": "Bearer"}
        case errors.IdempotencyConflictError():
            # The official client takes 409 for something that passes, unless it is told.
            return {"x-should-retry": "false"}
        case StillRunningError():
            # The official client would ask for another video.
            place = {"Location": f"/v1/videos/{error.video_id}", VIDEO_ID_HEADER: error.video_id}
            return place | {"x-should-retry": "false"}
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
        message = f"there is no route {request.method} {request.url.path}; /docs lists those there are"
    return _answer(error.status_code, message, code, headers=headers)


def _methods(request: Request) -> list[str]:
    """What this path takes by its description: Starlette tells of its first route alone."""
    for template, item in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.url.path):
            return sorted(method.upper() for method in item)
    return []


def _on_redis_error(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s: Redis: %s", request.method, request.url.path, error)
    message = "the job store does not answer; nothing is known of what was asked for, try again soon"
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, message, "job_store_unavailable", headers=headers)


def _on_client_disconnect(request: Request, error: Exception) -> JSONResponse:
    # Nobody is there to read this: it keeps a client that goes away from being logged as a failure of the server.
    return _answer(HTTPStatus.BAD_REQUEST, "the connection ended before the body did", "malformed_body")


def _on_anything_else(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the exception again after this answer, so that the server logs where it came from.
    message = "the server failed at this request; its log says why"
    # It is made outside of every middleware, so the one that names requests does not see it.
    headers = {"X-Request-Id": request.scope.get("request_id", "")}
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, message, "internal_error", headers=headers)
