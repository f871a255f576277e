"""Every request gets an id for the logs, is counted and timed for the metrics, and written to the request log."""

import logging
import re
import secrets
import time
from functools import cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.access.audit_log import AuditLog
from jobs.telemetry import log_context
from jobs.telemetry.metrics import Metrics
from jobs.telemetry.tracing import Tracing
from server.http.logged_path import logged_path

logger = logging.getLogger(__name__)

# The field of the ASGI scope with the id of the API key, set once the key is known.
KEY_ID = "framedit.key_id"
# The field with the `RateLimit` that the request was counted in.
RATE_LIMIT = "framedit.rate_limit"
REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_REFUSALS = {401, 403, 429}
_READ_METHODS = {"GET", "HEAD", "OPTIONS"}


class RequestLog:
    """ASGI middleware. The response carries the client's `X-Request-Id`, or a new one."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None, audit_log: AuditLog | None = None
    ) -> None:
        self._app = app
        self._audit_log = audit_log
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
                headers = MutableHeaders(raw=message["headers"])
                headers[REQUEST_ID_HEADER] = request_id
                headers["x-content-type-options"] = "nosniff"
                if (rate := scope.get(RATE_LIMIT)) is not None:
                    headers.update(rate.headers)
            await send(message)

        started = time.perf_counter()
        traceparent = self._tracing.traceparent() if self._tracing else None
        with log_context.about(request_id=request_id, traceparent=traceparent):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._record(scope, code, time.perf_counter() - started)

    def _record(self, scope: Scope, code: int, seconds: float) -> None:
        # The template and not the path, which would give a series to each video. Unknown paths share one series.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        count, time_of = self._series(route, method, str(code))
        count.inc()
        time_of.observe(seconds)
        is_refused = code in _REFUSALS
        level = logging.DEBUG if method in _READ_METHODS and code < 500 and not is_refused else logging.INFO
        if logger.isEnabledFor(level):
            fields = {"route": route, "method": method, "code": code, "seconds": round(seconds, 4)}
            if KEY_ID in scope:
                fields["key"] = scope[KEY_ID]
            by = f", API key {scope[KEY_ID]}" if is_refused and KEY_ID in scope else ""
            with log_context.about(video_id=scope.get("path_params", {}).get("video_id")):
                path = logged_path(scope["path"])
                logger.log(level, "%s %s %d%s", method, path, code, by, extra={"fields": fields})
        if self._audit_log is not None and (is_refused or method not in _READ_METHODS):
            self._audit_log.write(
                key=scope.get(KEY_ID),
                address=(scope.get("client") or ("",))[0],
                method=method,
                path=logged_path(scope["path"]),
                status=code,
                request_id=scope["request_id"],
            )


def _request_id(scope: Scope) -> str:
    requested = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return requested if _REQUEST_ID.fullmatch(requested) else secrets.token_hex(8)
