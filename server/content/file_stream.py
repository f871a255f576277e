"""Streams a range of an open file as a response body."""

import logging
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.content.range_header import ByteRange

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 18


class _ReadError(Exception):
    """The store failed while the body was being sent."""


class FileStream(StreamingResponse):
    """Owns the file and closes it.

    The first chunk is read at once, so that a store that fails then can still be answered with an error.
    """

    def __init__(
        self, file: BinaryIO, part: ByteRange, status: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        """:raises OSError: when the file cannot be read."""
        self._file = file
        file.seek(part.start)
        first = file.read(min(_CHUNK_BYTES, part.end - part.start))
        super().__init__(self._chunks(first, part.end - part.start), status, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _ReadError as error:
            # The status is out already. The server closes the connection when the rest of the body is missing.
            logger.warning("%s %s: download aborted, artifact store failed: %s", scope["method"], scope["path"], error)
        finally:
            self._file.close()

    def _chunks(self, first: bytes, num_bytes: int) -> Iterator[bytes]:
        chunk = first
        while chunk:
            yield chunk
            num_bytes -= len(chunk)
            try:
                chunk = self._file.read(min(_CHUNK_BYTES, num_bytes))
            except OSError as error:
                raise _ReadError(str(error)) from error
