"""Limits on request bodies: on the size of one, and on the memory of all that are being read."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.errors import OverloadedError
from server.errors import BodyTooLargeError

# Bodies up to this size are always read. Requests for videos fit into it.
_SMALL_BYTES = 16 << 10
_RETRY_AFTER_SECONDS = 1


class BodyLimit:
    """ASGI middleware: the read that passes a limit raises inside the route.

    `BodyTooLargeError` for more than `max_bytes`, in a form with files for more than `max_upload_bytes`.
    `OverloadedError` for a large body while the large bodies of all requests in progress exceed `max_total_bytes`.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_upload_bytes: int, max_total_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_upload_bytes = max_upload_bytes
        self._max_total_bytes = max(max_bytes, max_upload_bytes, max_total_bytes)
        self._total_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        max_bytes = self._max_upload_bytes if is_upload else self._max_bytes
        declared = headers.get("content-length", "0")
        declared_bytes = int(declared) if declared.isascii() and declared.isdigit() else 0
        received = counted = 0

        async def limited() -> Message:
            nonlocal received, counted
            if max(declared_bytes, received) > max_bytes:
                raise self._too_large(max_bytes)
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise self._too_large(max_bytes)
            if received > _SMALL_BYTES:
                self._total_bytes += received - counted
                counted = received
                if self._total_bytes > self._max_total_bytes:
                    raise OverloadedError("the server is reading too many large bodies", _RETRY_AFTER_SECONDS)
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._total_bytes -= counted

    def _too_large(self, max_bytes: int) -> BodyTooLargeError:
        message = f"the body is larger than {max_bytes} bytes, the most that is allowed"
        if max_bytes < self._max_upload_bytes:
            message += f"; upload files in a form (multipart/form-data) of at most {self._max_upload_bytes} bytes"
        return BodyTooLargeError(message)
