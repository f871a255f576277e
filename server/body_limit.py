"""Refuses a request body that is too large while it is being read, whoever reads it."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BodyTooLargeError


class BodyLimit:
    """ASGI middleware: the read that passes `max_bytes` raises `BodyTooLargeError` inside the route."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        received = int(declared) if declared.isascii() and declared.isdigit() else 0
        if received <= self._max_bytes:
            received = 0

        async def limited() -> Message:
            nonlocal received
            if received <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise BodyTooLargeError(f"the body is larger than {self._max_bytes} bytes, the most that is taken")
            return message

        await self._app(scope, limited, send)
