"""Routes that make a new video from an existing one: edits and extensions."""

from fastapi import APIRouter

from server.auth import REFUSALS
from server.creation.create_videos import CREATION_ERRORS, CreationDep
from server.dependencies import ServicesDep
from server.objects.video import Video, current_video
from server.openapi import links_of_video, request_body
from server.request_body import FieldsDep
from server.request_fields import parse
from server.wire import EditVideo, ExtendVideo

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)


@router.post(
    "/edits", responses=links_of_video() | CREATION_ERRORS, openapi_extra=request_body(EditVideo, files=["video"])
)
def edit_video(creation: CreationDep, fields: FieldsDep, services: ServicesDep) -> Video:
    """Create a video from a noisy copy of another one: `strength` decides how much of it may change."""
    record = creation.edit(parse(EditVideo, fields), fields.files.get("video"))
    return current_video(services.redis, record)


@router.post(
    "/extensions",
    responses=links_of_video() | CREATION_ERRORS,
    openapi_extra=request_body(ExtendVideo, files=["video"]),
)
def extend_video(creation: CreationDep, fields: FieldsDep, services: ServicesDep) -> Video:
    """Create a video that is another one and its continuation, in one file."""
    record = creation.extend(parse(ExtendVideo, fields), fields.files.get("video"))
    return current_video(services.redis, record)
