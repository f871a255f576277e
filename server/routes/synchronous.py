"""A video in one request: ask, wait, and get the file."""

import time
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from jobs.events import START
from jobs.records import VideoRecord
from server.auth import REFUSALS
from server.body import FieldsDep
from server.creation import CreationDep
from server.dependencies import Services, ServicesDep
from server.errors import VIDEO_ID_HEADER, StillRunningError, documented
from server.openapi import request_body
from server.routes.content import file_response
from server.routes.videos import create_video
from server.validation import CreateOneVideo, parse
from server.wire import Video, VideoTimings

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

_LOOK_SECONDS = 1.0

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The MP4",
        "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            VIDEO_ID_HEADER: {"schema": {"type": "string"}, "description": "For the other routes"},
            "Server-Timing": {
                "schema": {"type": "string"},
                "description": "Milliseconds in the `queue`, and for `denoise`, `decode` and `encode`",
            },
        },
    },
    **documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    ),
}


@router.post("/sync", response_class=Response, responses=_RESPONSES, openapi_extra=request_body(CreateOneVideo))
async def create_and_wait(
    creation: CreationDep, fields: FieldsDep, services: ServicesDep, request: Request
) -> Response:
    """Ask for a video, and wait for its file. One that fails is 404 with the reason.

    What takes too long is 504 with the video's id, and goes on. A client that leaves before the end has its video
    cancelled, unless it sent an `Idempotency-Key`, with which it can come back.
    """
    parse(CreateOneVideo, fields)
    video = await run_in_threadpool(create_video, creation, fields, services)
    assert isinstance(video, Video)
    if not await _ends(services, video.id, request):
        if "idempotency-key" not in request.headers:
            await run_in_threadpool(services.store.cancel, video.id)
        raise ClientDisconnect
    record = await run_in_threadpool(services.store.get, video.id)
    response = await run_in_threadpool(file_response, services, record, "video", request)
    response.headers[VIDEO_ID_HEADER] = video.id
    response.headers["Server-Timing"] = _timing(record)
    response.headers.update(creation.response.headers)
    return response


async def _ends(services: Services, video_id: str, request: Request) -> bool:
    """Wait for a video. False when the client left first.

    :raises StillRunningError: when it takes too long.
    """
    give_up_at = time.monotonic() + services.settings.sync_timeout_seconds
    with services.events.watch(video_id, START) as watcher:
        await services.events.refresh(video_id)
        while not watcher.closed:
            left = give_up_at - time.monotonic()
            if left <= 0:
                raise StillRunningError(video_id, f"after {services.settings.sync_timeout_seconds:g} seconds")
            event = await watcher.next(min(left, _LOOK_SECONDS))
            if event is not None and event.is_last:
                return True
            if await request.is_disconnected():
                return False
    raise StillRunningError(video_id, "and this server is about to stop")


def _timing(record: VideoRecord) -> str:
    waited = None if record.started_at is None else record.started_at - record.created_at
    seconds = VideoTimings(queue_s=waited, **record.timings.model_dump())
    stages = [(name.removesuffix("_s"), value) for name, value in seconds if value is not None]
    return ", ".join(f"{name};dur={value * 1000:.1f}" for name, value in stages)
