"""Routes that create, retrieve, list, cancel, delete and remix videos."""

import logging
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from jobs.errors import ArtifactStoreError
from jobs.videos.record import ID_PATTERN
from server.auth import (
    REFUSALS,
    CreatorDep,
    Credentials,
    DeleterDep,
    ReaderDep,
    authenticate_and_read,
    check_scope,
    check_visible,
    find_visible,
)
from server.creation.create_videos import CREATION_ERRORS, CreationDep
from server.dependencies import ServicesDep, get_services
from server.errors import described_headers, documented
from server.objects.video import DeletedVideo, Video, VideoList, current_video, current_videos, to_video, to_videos
from server.openapi import links_of_video, request_body
from server.polling.video_read import parse_record, poll_after_ms, read_commands
from server.request_body import FieldsDep
from server.request_fields import parse
from server.wire import CreateVideo, RemixVideo

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

_POLL_HEADER = "openai-poll-after-ms"
_POLLED: dict[int | str, dict[str, Any]] = {
    200: {"headers": described_headers({_POLL_HEADER: "Milliseconds to wait before the next poll; absent at the end"})}
}
_ID_ERRORS = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


@router.post(
    "", responses=links_of_video() | CREATION_ERRORS, openapi_extra=request_body(CreateVideo, files=["input_reference"])
)
def create_video(creation: CreationDep, fields: FieldsDep, services: ServicesDep) -> Video | VideoList:
    """Create a video. The answer is immediate; poll the video or follow its events until it is completed or failed.

    With `n` above 1 the answer is a list of that many videos.
    """
    body = parse(CreateVideo, fields)
    videos = current_videos(services.redis, creation.create(body, fields.files.get("input_reference")))
    return videos[0] if body.n == 1 else VideoList.of(videos)


@router.get("", responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE))
async def list_videos(
    caller: ReaderDep,
    services: ServicesDep,
    after: Annotated[
        str | None,
        Query(
            description="The id of the last video of the previous page",
            json_schema_extra={"pattern": f"^{ID_PATTERN}$"},
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Videos per page")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation")] = "desc",
) -> VideoList:
    """List your videos, newest first. With the scope admin, the list holds the videos of all API keys."""
    page = await run_in_threadpool(services.store.list, after, limit, order, owner=caller.sees_only)
    # From the cache: each position read from Redis would be a search through the queue.
    forecasts = {record.id: await services.forecasts.forecast(record) for record in page.records}
    return VideoList.of(to_videos(page.records, forecasts), page.has_more)


@router.get("/{video_id}", responses=_POLLED | _ID_ERRORS, response_model=Video)
async def retrieve_video(video_id: str, credentials: Credentials, request: Request) -> Response:
    """Retrieve a video. A failed one answers 200, too. The header `openai-poll-after-ms` says when to poll again."""
    services = await get_services(request)
    caller, replies = await authenticate_and_read(request, services, credentials, *read_commands(video_id))
    record = check_visible(check_scope(caller, "read"), parse_record(video_id, replies))
    forecast = await services.forecasts.forecast(record)
    is_over = record.status in ("completed", "failed")
    headers = {} if is_over else {_POLL_HEADER: str(poll_after_ms(forecast))}
    # Serialised here: FastAPI would validate the model a second time, and this is the most frequent request.
    return Response(to_video(record, forecast).model_dump_json(), headers=headers, media_type="application/json")


@router.delete("/{video_id}", responses=_ID_ERRORS)
def delete_video(video_id: str, caller: DeleterDep, services: ServicesDep) -> DeletedVideo:
    """Delete a video and its files. If it is in progress, generation stops at the next denoising step."""
    find_visible(services, caller, video_id)
    services.store.delete(video_id)
    try:
        services.artifacts.delete(video_id)
    except ArtifactStoreError as error:
        # Files without a record are unreachable, and the janitor removes them.
        logger.warning("%s: deleted, its files are removed later: %s", video_id, error)
    return DeletedVideo(id=video_id)


@router.post("/{video_id}/cancel", responses=_ID_ERRORS)
def cancel_video(video_id: str, caller: CreatorDep, services: ServicesDep) -> Video:
    """Cancel a video: it ends as `failed` with the error code `cancelled`. A finished video does not change."""
    find_visible(services, caller, video_id)
    return current_video(services.redis, services.store.cancel(video_id))


@router.post("/{video_id}/remix", responses=links_of_video() | CREATION_ERRORS, openapi_extra=request_body(RemixVideo))
def remix_video(video_id: str, creation: CreationDep, fields: FieldsDep, services: ServicesDep) -> Video:
    """Create a video from an existing one with a new prompt or seed.

    Everything else stays: the model, the settings, and the image or video that it starts from.
    """
    return current_video(services.redis, creation.remix(video_id, parse(RemixVideo, fields)))
