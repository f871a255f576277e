"""HTTP/1.1 connections with limits, so that clients exhaust neither memory nor descriptors.

uvicorn's httptools protocol bounds neither the head of a request nor the time that a client takes. This one bounds
both, and `connections.py` bounds the memory and number of all connections. uvicorn's h11 protocol also bounds the head,
and costs twice as much per request.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.http.connections import Connections

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 128
# Requests that a client may send before the answer to the first.
MAX_PIPELINED = 16
# The minimum rate of a transfer after its first `stall_seconds`.
MIN_BYTES_PER_SECOND = 1024

_SLICE_BYTES = 16 << 10
_OVERHEAD_BYTES = 4  # of a header: colon, space, CR and LF
# A client that is still sending reads the response only if its connection is not reset.
_LINGER_SECONDS = 2.0


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol within the limits of `connections`."""

    def __init__(self, connections: Connections, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.client_address = ""
        self.pending_head_bytes = 0
        self._all = connections
        self._limits = connections.limits
        self._head_bytes = 0
        self._num_headers = 0
        self._unparsed_bytes = 0  # held by the parser
        self._in_head = self._in_body = self._refused = False
        self._read_deadline: float | None = None
        self._write_deadline: float | None = None
        self._unsent_bytes = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client_address = self.client[0] if self.client else ""
        self._read_deadline = self.loop.time() + self._limits.head_seconds
        if not self._all.admit(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "server full", "the server has no free connection")
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.remove(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def abort(self) -> None:
        self.transport.abort()

    def check_progress(self, now: float) -> None:
        if self._read_deadline is not None and now > self._read_deadline:
            self._on_late_request(now)
        self._check_writing(now)

    # Called by the transport and the parser

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._read_deadline is None and not self._is_responding:
            self._read_deadline = self.loop.time() + self._limits.head_seconds
        try:
            # The parser buffers an incomplete header. It gets data in slices, so that the buffer can be counted.
            view = memoryview(data)
            for start in range(0, len(view), _SLICE_BYTES):
                self._feed(view[start : start + _SLICE_BYTES])
                if self._refused or self.transport.is_closing():
                    return
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as any other
        except httptools.HttpParserError:
            if not self._refused:
                self._refuse(HTTPStatus.BAD_REQUEST, "invalid request", "this is not HTTP/1.1")

    def _feed(self, data: memoryview) -> None:
        self._unparsed_bytes += len(data)
        self.parser.feed_data(data)
        self._check_head_size()
        if self._in_head and not self._refused:
            self._all.hold_head(self, len(data))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._num_headers = 0

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Also of trailers, which follow a chunked body.
        self._num_headers += 1
        self._count_head(len(name) + len(value) + _OVERHEAD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._head_bytes = self._num_headers = self._unparsed_bytes = 0
        self._all.serve(self)
        self._read_deadline = self.loop.time() + self._limits.stall_seconds
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "too many pipelined requests", "wait for the first answer")
            raise _RefusedError

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        if self._read_deadline is not None:
            self._read_deadline = self._later(self._read_deadline, len(body), self.loop.time())
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._unparsed_bytes = 0
        self._read_deadline = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_responding and not self.transport.is_closing():
            self._all.wait(self)
            if self._in_head:
                self._read_deadline = self.loop.time() + self._limits.head_seconds

    # Limits

    @property
    def _is_responding(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _count_head(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        self._unparsed_bytes = 0
        self._check_head_size()
        if self._refused:
            raise _RefusedError  # stops the parser

    def _check_head_size(self) -> None:
        if self._head_bytes + self._unparsed_bytes > MAX_HEAD_BYTES or self._num_headers > MAX_HEADERS:
            allowed = f"URL and headers may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} lines together"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too large", allowed)

    def _on_late_request(self, now: float) -> None:
        if self._refused:
            self.abort()
        elif self.flow.read_paused:  # the delay is the server's
            self._read_deadline = now + self._limits.stall_seconds
        elif self._in_body:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request body stalled", "the body of the request stalled")
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request head too slow", "the head of the request took too long")

    def _check_writing(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0:
            self._write_deadline = None
        elif self._write_deadline is None or unsent > self._unsent_bytes:
            self._write_deadline = now + self._limits.stall_seconds
        else:
            self._write_deadline = self._later(self._write_deadline, self._unsent_bytes - unsent, now)
            if now > self._write_deadline:
                self._all.note_closed("response not read", self.client_address)
                self.abort()
        self._unsent_bytes = unsent

    def _later(self, deadline: float, num_bytes: int, now: float) -> float:
        """The deadline after that many bytes more: progress at less than the minimum rate does not reset it."""
        return min(deadline + num_bytes / MIN_BYTES_PER_SECOND, now + self._limits.stall_seconds)

    def _refuse(self, status: HTTPStatus, reason: str, message: str) -> None:
        """Answer with an error and close the connection; without an answer while another response is being sent."""
        self._refused = True
        self._all.note_closed(reason, self.client_address)
        self._unset_keepalive_if_required()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and (cycle.response_started or not self._in_body):
            self.abort()
            return
        self.transport.write(_error(status, reason, message))
        if self._in_body or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self._read_deadline = self.loop.time() + _LINGER_SECONDS
            self.transport.write_eof()


class _RefusedError(Exception):
    """Stops the parser."""


def _error(status: HTTPStatus, code: str, message: str) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code.replace(" ", "_")}
    body = json.dumps({"error": error}).encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "x-content-type-options: nosniff",
        "connection: close",
        *(["retry-after: 1"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
