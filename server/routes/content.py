"""A video's files."""

import re
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from jobs.artifacts import file_name
from jobs.errors import VideoFailedError, VideoGoneError, VideoNotFoundError, VideoNotReadyError
from jobs.records import ArtifactKind, VideoRecord
from server.auth import REFUSALS, Caller, ReaderDep, find_visible
from server.bucket_response import StoredFile, redirect, send_on
from server.dependencies import Services, ServicesDep
from server.errors import RangeNotSatisfiableError, described_headers, documented

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

_MAX_NAME_CHARACTERS = 60

_MEDIA_TYPES: dict[ArtifactKind, str] = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}
_FILE_HEADERS = described_headers(
    {
        "ETag": "For `If-None-Match` and `If-Range`",
        "Accept-Ranges": "`bytes`",
        "Content-Disposition": "A name for the file",
    },
    required=True,
)
_FILE = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in _MEDIA_TYPES.values()}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": _FILE, "headers": _FILE_HEADERS},
    206: {
        "description": "The part of the file that `Range` asks for",
        "content": _FILE,
        "headers": _FILE_HEADERS | described_headers({"Content-Range": "Which part"}, required=True),
    },
    304: {"description": "The client has it already (`If-None-Match`)"},
    307: {"description": "The file is at the object store, under the URL in `Location`, for a few minutes"},
    **documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
}


@router.head("/{video_id}/content", name="video_content_head", response_class=FileResponse, responses=_RESPONSES)
@router.get("/{video_id}/content", response_class=FileResponse, responses=_RESPONSES)
def video_content(
    video_id: str,
    caller: ReaderDep,
    services: ServicesDep,
    request: Request,
    variant: ArtifactKind = "video",
) -> Response:
    """The MP4 (H.264), its thumbnail (WebP), or up to 16 of its frames on one sheet (JPEG).

    Not ready yet: 409; failed: 404 with the reason; expired: 410.
    """
    is_redirect = not services.artifacts.is_folder and services.settings.artifact_delivery == "redirect"
    return file_response(services, _find(services, caller, video_id), variant, request, is_redirect)


def file_response(
    services: Services, record: VideoRecord, variant: ArtifactKind, request: Request, is_redirect: bool = False
) -> Response:
    """The file of a video, or the part of it that is asked for, or word that the client has it.

    :raises VideoUnavailableError: when there is no such file.
    """
    video_id = record.id
    _check_available(record)
    artifact = record.artifacts.get(variant)
    if artifact is None or not services.artifacts.exists(video_id, variant):
        raise VideoGoneError(f"the {variant} of {video_id} is no longer there")
    headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "private, no-cache"}
    if request.method != "POST" and _client_has(headers["ETag"], request):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    _check_range(request, headers["ETag"], artifact.num_bytes)
    name = _file_name(record, Path(file_name(variant)).suffix)
    if not services.artifacts.is_folder:
        stored = StoredFile(services.artifacts, video_id, variant, artifact.num_bytes, _MEDIA_TYPES[variant], name)
        return redirect(stored) if is_redirect else send_on(stored, request, headers)
    path = services.artifacts.path(video_id, variant)
    return FileResponse(
        path,
        headers=headers,
        media_type=_MEDIA_TYPES[variant],
        filename=name,
        stat_result=path.stat(),
        content_disposition_type="inline",
    )


def _find(services: Services, caller: Caller, video_id: str) -> VideoRecord:
    try:
        return find_visible(services, caller, video_id)
    except VideoNotFoundError:
        if services.store.is_gone(video_id, caller.sees_only):
            raise VideoGoneError(f"{video_id} expired and can no longer be downloaded") from None
        raise


def _check_available(record: VideoRecord) -> None:
    if record.status == "failed":
        assert record.error is not None
        raise VideoFailedError(f"{record.id} has no file, it failed ({record.error.code}): {record.error.message}")
    if record.status != "completed":
        raise VideoNotReadyError(f"{record.id} is {record.status}, {record.progress} % done; ask again later")
    if record.expires_at is not None and record.expires_at <= time.time():
        raise VideoGoneError(f"{record.id} expired and can no longer be downloaded")


def _client_has(etag: str, request: Request) -> bool:
    asked = request.headers.get("if-none-match", "")
    return asked.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in asked.split(","))


def _check_range(request: Request, etag: str, num_bytes: int) -> None:
    """Leave to `FileResponse` only what it can serve: what is no range of this file is to be ignored (RFC 9110, 14.2).

    So are several ranges at once, for which no player asks.
    """
    asked = request.headers.get("range", "")
    parts = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.strip(), re.ASCII | re.IGNORECASE)
    first, last = parts.groups() if parts else ("", "")
    is_none = not (first or last) or bool(first and last and int(last) < int(first))
    if is_none or request.method != "GET" or request.headers.get("if-range", etag) != etag:
        request.scope["headers"] = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    elif (first and int(first) >= num_bytes) or (not first and int(last) == 0):
        raise RangeNotSatisfiableError(asked, num_bytes)


def _file_name(record: VideoRecord, ending: str) -> str:
    """A few words of what the video shows, and enough of the id to tell two apart."""
    words = "-".join(re.findall(r"\w+", (record.request.prompt or record.request.class_name or record.request.model)))
    return f"{words[:_MAX_NAME_CHARACTERS].rstrip('-').lower()}-{record.id[-6:]}{ending}"
