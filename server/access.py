"""Around every request: an id for the logs, a count and a time for the metrics, a line in the log."""

import logging
import re
import secrets
import time
from functools import cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs import log_context
from jobs.metrics import Metrics
from jobs.tracing import Tracing

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_ONLY_LOOKING = {"GET", "HEAD", "OPTIONS"}


class Access:
    """ASGI middleware. A client may name its request in `X-Request-Id`; the answer has that or a new id there."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None) -> None:
        self._app = app
        self._tracing = tracing
        self._series = cache(
            lambda route, method, code: (
                metrics.http_requests.labels(route, method, code),
                metrics.http_seconds.labels(route, method),
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = _request_id(scope)
        code = 500

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                MutableHeaders(raw=message["headers"])[REQUEST_ID_HEADER] = request_id
            await send(message)

        started = time.perf_counter()
        traceparent = self._tracing.traceparent() if self._tracing else None
        with log_context.about(request_id=request_id, traceparent=traceparent):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._note(scope, code, time.perf_counter() - started)

    def _note(self, scope: Scope, code: int, seconds: float) -> None:
        # The template, not the path: a series for each video would never end. What matches nothing is one series.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        count, time_of = self._series(route, method, str(code))
        count.inc()
        time_of.observe(seconds)
        level = logging.DEBUG if method in _ONLY_LOOKING and code < 500 else logging.INFO
        if logger.isEnabledFor(level):
            fields = {"route": route, "method": method, "code": code, "seconds": round(seconds, 4)}
            with log_context.about(video_id=scope.get("path_params", {}).get("video_id")):
                logger.log(level, "%s %s %d", method, scope["path"], code, extra={"fields": fields})


def _request_id(scope: Scope) -> str:
    asked = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
