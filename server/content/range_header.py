"""The `Range` header of a request for a file (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

from fastapi import Request

from server.errors import RangeNotSatisfiableError

_SINGLE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class ByteRange:
    """The bytes from `start` up to, but not including, `end`."""

    start: int
    end: int


def requested_range(request: Request, etag: str, num_bytes: int) -> ByteRange | None:
    """The part of a file that a request asks for, None for the whole file.

    Malformed ranges and several ranges in one header are ignored, as the standard allows. No player sends them.

    :raises RangeNotSatisfiableError: when the range starts after the end of the file.
    """
    value = request.headers.get("range", "")
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    match = _SINGLE_RANGE.fullmatch(value.strip())
    first, last = match.groups() if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return None
    start = int(first) if first else max(0, num_bytes - int(last))
    end = min(int(last) + 1, num_bytes) if first and last else num_bytes
    if start >= num_bytes:
        raise RangeNotSatisfiableError(value, num_bytes)
    return ByteRange(start, end)
