"""The response that carries a file of a video: whole, in part, or as a redirect to the object store."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from jobs.errors import (
    ArtifactFileMissingError,
    ArtifactStoreError,
    NotFoundError,
    VideoFailedError,
    VideoGoneError,
    VideoNotReadyError,
)
from jobs.storage.artifact_store import ArtifactStore, file_name
from jobs.videos.record import Artifact, ArtifactKind, Variant, VideoRecord
from server.content.file_stream import FileStream
from server.content.range_header import ByteRange, requested_range

MEDIA_TYPES: dict[ArtifactKind, str] = {
    "video": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
    "webp": "image/webp",
    "frames": "application/zip",
    "image": "image/png",
    "thumbnail": "image/webp",
    "spritesheet": "image/jpeg",
}
# The results: one of them for each video.
RESULTS: tuple[ArtifactKind, ...] = ("video", "webm", "gif", "webp", "frames", "image")

# Long enough to begin a download, short for a URL that needs no API key.
_LINK_SECONDS = 300
_MAX_NAME_CHARACTERS = 60


def file_response(
    artifacts: ArtifactStore, record: VideoRecord, variant: Variant, request: Request, redirects: bool = False
) -> Response:
    """The file of a video, the range of it that the request asks for, or 304 where the client already has it.

    The file is opened before the status is chosen: once it is open, a deletion cannot truncate the body.

    :raises VideoUnavailableError: when the video has no such file.
    :raises NotFoundError: for the frames of a video that is not of the format png.
    :raises ArtifactStoreError: when the store does not answer.
    :raises RangeNotSatisfiableError: when the range starts after the end of the file.
    """
    kind, artifact = _find_artifact(record, variant)
    headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "private, no-cache"}
    with ExitStack() as stack, _explaining_failures(record, kind):
        file = stack.enter_context(artifacts.open(record.id, kind))
        if request.method != "POST" and _client_has(headers["ETag"], request):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        num_bytes = file.seek(0, os.SEEK_END)
        part = requested_range(request, headers["ETag"], num_bytes)
        if redirects:
            return _redirect(artifacts, record, kind)
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        headers |= _file_headers(record, kind, part, num_bytes)
        if request.method == "HEAD":
            return Response(None, status, headers, MEDIA_TYPES[kind])
        response = FileStream(file, part or ByteRange(0, num_bytes), status, headers, MEDIA_TYPES[kind])
        stack.pop_all()  # from here on the response owns the file
        return response


def _find_artifact(record: VideoRecord, variant: Variant) -> tuple[ArtifactKind, Artifact]:
    if record.status == "failed":
        assert record.error is not None
        raise VideoFailedError(f"{record.id} has no file, it failed ({record.error.code}): {record.error.message}")
    if record.status != "completed":
        raise VideoNotReadyError(
            f"{record.id} is {record.status}, {record.progress} % done; request its file again later"
        )
    if record.expires_at is not None and record.expires_at <= time.time():
        raise VideoGoneError(f"{record.id} expired and can no longer be downloaded")
    kinds = RESULTS if variant == "video" else (variant,)
    for kind in kinds:
        if kind in record.artifacts:
            return kind, record.artifacts[kind]
    if variant == "frames":
        raise NotFoundError(
            f"variant is 'frames'; {record.id} has the one file {file_name(record.request.result_kind)}: "
            "only a video of several frames with output_format 'png' has its frames"
        )
    raise VideoGoneError(f"{record.id} has no {variant}")


@contextmanager
def _explaining_failures(record: VideoRecord, kind: ArtifactKind) -> Iterator[None]:
    try:
        yield
    except (ArtifactFileMissingError, FileNotFoundError):
        raise VideoGoneError(f"the {kind} of {record.id} was removed and can no longer be downloaded") from None
    except OSError as error:
        raise ArtifactStoreError(f"the {kind} of {record.id} cannot be read; try again later") from error


def _file_headers(record: VideoRecord, kind: ArtifactKind, part: ByteRange | None, num_bytes: int) -> dict[str, str]:
    assert record.completed_at is not None
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": _disposition(record, kind),
        "Last-Modified": formatdate(record.completed_at, usegmt=True),
    }
    if part is None:
        return headers | {"Content-Length": str(num_bytes)}
    return headers | {
        "Content-Length": str(part.end - part.start),
        "Content-Range": f"bytes {part.start}-{part.end - 1}/{num_bytes}",
    }


def _redirect(artifacts: ArtifactStore, record: VideoRecord, kind: ArtifactKind) -> Response:
    url = artifacts.link(record.id, kind, _LINK_SECONDS, MEDIA_TYPES[kind], _disposition(record, kind))
    # The URL is valid for a few minutes only, so no cache may keep the redirect.
    return RedirectResponse(url, HTTPStatus.TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"})


def _client_has(etag: str, request: Request) -> bool:
    tags = request.headers.get("if-none-match", "")
    return tags.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in tags.split(","))


def _disposition(record: VideoRecord, kind: ArtifactKind) -> str:
    """The `Content-Disposition` (RFC 6266): shown in place, saved under a name that describes the video."""
    request = record.request
    text = request.original_prompt or request.prompt or request.class_name or request.model
    words = "-".join(re.findall(r"\w+", text))
    # The end of the id tells two videos of the same prompt apart.
    name = f"{words[:_MAX_NAME_CHARACTERS].rstrip('-').lower()}-{record.id[-6:]}{Path(file_name(kind)).suffix}"
    quoted = quote(name)
    return f'inline; filename="{name}"' if quoted == name else f"inline; filename*=utf-8''{quoted}"
