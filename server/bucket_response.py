"""A file that is not on this machine: sent on from the object store, or the client is sent there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.datastructures import Headers

from jobs.artifacts import ArtifactStore
from jobs.records import ArtifactKind

# Long enough to begin a download, and short for a URL that needs no key.
_LINK_SECONDS = 300
_CHUNK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class StoredFile:
    """A file in a bucket, and what a client is told of it."""

    artifacts: ArtifactStore
    video_id: str
    kind: ArtifactKind
    num_bytes: int
    media_type: str
    file_name: str

    @property
    def disposition(self) -> str:
        """To be shown in place, under this name when it is saved (RFC 6266)."""
        quoted = quote(self.file_name)
        is_plain = quoted == self.file_name
        return f'inline; filename="{self.file_name}"' if is_plain else f"inline; filename*=utf-8''{quoted}"


def redirect(stored: StoredFile) -> Response:
    """To a URL that is good for a few minutes only, and so is not to be kept."""
    url = stored.artifacts.link(stored.video_id, stored.kind, _LINK_SECONDS, stored.media_type, stored.disposition)
    return RedirectResponse(url, HTTPStatus.TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"})


def send_on(stored: StoredFile, request: Request, headers: dict[str, str]) -> Response:
    """The file, or the part of it that `Range` asks for; the range has been found to be one of the file."""
    # Not `request.headers`, which may be older: a range that is to be ignored has been taken out of the scope.
    part = _part(Headers(scope=request.scope).get("range", ""), stored.num_bytes)
    start, end = part or (0, stored.num_bytes)
    headers = headers | {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Disposition": stored.disposition,
    }
    status = HTTPStatus.OK
    if part is not None:
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.num_bytes}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=stored.media_type)
    file = stored.artifacts.open(stored.video_id, stored.kind)
    return StreamingResponse(_read(file, start, end), status, headers, stored.media_type)


def _part(asked: str, num_bytes: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None where no part is asked for."""
    parts = _RANGE.fullmatch(asked.strip())
    if parts is None:
        return None
    first, last = parts.groups()
    if not first:
        return max(0, num_bytes - int(last)), num_bytes
    return int(first), min(int(last) + 1, num_bytes) if last else num_bytes


def _read(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < end and (chunk := file.read(min(_CHUNK_BYTES, end - start))):
            start += len(chunk)
            yield chunk
