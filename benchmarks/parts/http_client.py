"""A small HTTP client: a thousand of them must not dominate the measurement."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """An HTTP answer and the seconds from the request to its last byte."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class HttpConnection:
    """One HTTP/1.1 connection that stays open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._writer is not None
        self._writer.close()

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send a request and read the whole answer, which must have a `content-length`."""
        assert self._reader is not None
        started = time.perf_counter()
        self.send(method, path, body)
        status, headers = await self.head()
        content = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, content, time.perf_counter() - started)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """Send a request without reading the answer."""
        assert self._writer is not None
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
        if content:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        self._writer.write(f"{head}\r\n".encode() + content)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the status and the headers, their names in lower case."""
        assert self._reader is not None
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), headers

    async def read_until(self, text: bytes) -> bytes:
        """Read up to and including `text`."""
        assert self._reader is not None
        return await self._reader.readuntil(text)
