"""Routes for the files of a video."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from jobs.errors import VideoGoneError, VideoNotFoundError
from jobs.videos.record import Variant, VideoRecord
from server.auth import REFUSALS, Caller, ReaderDep, find_visible
from server.content.file_response import MEDIA_TYPES, file_response
from server.dependencies import Services, ServicesDep
from server.errors import described_headers, documented

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

_FILE_HEADERS = described_headers(
    {
        "ETag": "For `If-None-Match` and `If-Range`",
        "Accept-Ranges": "`bytes`",
        "Content-Disposition": "A file name made from the prompt or class",
        "Last-Modified": "When the video completed",
    },
    required=True,
)
_FILE = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES.values()}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": _FILE, "headers": _FILE_HEADERS},
    206: {
        "description": "The range of the file that the `Range` header asks for",
        "content": _FILE,
        "headers": _FILE_HEADERS | described_headers({"Content-Range": "The range and the file's size"}, required=True),
    },
    304: {"description": "The client already has this file (`If-None-Match`)"},
    307: {"description": "The file is in the object store; the URL in `Location` is valid for five minutes"},
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
    variant: Variant = "video",
) -> Response:
    """Download the video in its `output_format`, its thumbnail (WebP), or a sprite sheet of up to 16 frames (JPEG).

    `mp4` is H.264, `webm` VP9, and `png` a ZIP of lossless PNGs, which `variant=frames` answers as well. A video of one
    frame is a PNG.

    A video that is not completed yet answers 409, a failed one 404 with the reason, an expired one 410.
    """
    redirects = not services.artifacts.is_folder and services.settings.artifact_delivery == "redirect"
    return file_response(services.artifacts, _find(services, caller, video_id), variant, request, redirects)


def _find(services: Services, caller: Caller, video_id: str) -> VideoRecord:
    try:
        return find_visible(services, caller, video_id)
    except VideoNotFoundError:
        if services.store.is_gone(video_id, caller.sees_only):
            raise VideoGoneError(f"{video_id} expired and can no longer be downloaded") from None
        raise
