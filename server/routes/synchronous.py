"""The route that creates a video, waits for it and answers the file."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from jobs.videos.record import VideoRecord
from server.auth import REFUSALS
from server.content.file_response import MEDIA_TYPES, RESULTS, file_response
from server.creation.create_videos import CREATION_ERRORS, CreationDep
from server.dependencies import ServicesDep
from server.errors import VIDEO_ID_HEADER, described_headers, documented
from server.events.waiting import wait_for_end
from server.objects.video import stage_durations
from server.openapi import request_body
from server.request_body import FieldsDep
from server.request_fields import parse
from server.wire import CreateOneVideo

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file in its `output_format`; the PNG of a video of one frame",
        "content": {MEDIA_TYPES[kind]: {"schema": {"type": "string", "format": "binary"}} for kind in RESULTS},
        "headers": described_headers(
            {
                VIDEO_ID_HEADER: "The video's id, for the other routes",
                "X-Model": "The model that generated the video",
                "X-Inference-Time-S": "Seconds of denoising, decoding and encoding",
                "Server-Timing": "Milliseconds in the stages `queue`, `denoise`, `decode` and `encode`",
            }
        ),
    },
    **CREATION_ERRORS,
    **documented(HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.GATEWAY_TIMEOUT),
}


@router.post(
    "/sync",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=request_body(CreateOneVideo, files=["input_reference"]),
)
async def create_and_wait(
    creation: CreationDep, fields: FieldsDep, services: ServicesDep, request: Request
) -> Response:
    """Create a video, wait until it is completed, and answer its file. A video that fails answers 404 with the reason.

    After the server's time limit the answer is 504 with the video's id, and generation continues. If you disconnect
    earlier, the video is cancelled, unless you sent an `Idempotency-Key`: then send the same request again to resume.
    """
    body = parse(CreateOneVideo, fields)
    [created] = await run_in_threadpool(creation.create, body, fields.files.get("input_reference"))
    if not await wait_for_end(services.events, created.id, request, services.settings.sync_timeout_seconds):
        if "idempotency-key" not in request.headers:
            await run_in_threadpool(services.store.cancel, created.id)
        raise ClientDisconnect
    record = await run_in_threadpool(services.store.get, created.id)
    response = await run_in_threadpool(file_response, services.artifacts, record, "video", request)
    response.headers.update(_headers(record))
    response.headers.update(creation.response.headers)
    return response


def _headers(record: VideoRecord) -> dict[str, str]:
    durations = stage_durations(record)
    return {
        VIDEO_ID_HEADER: record.id,
        "X-Model": record.request.model,
        "X-Inference-Time-S": f"{sum(seconds for stage, seconds in durations.items() if stage != 'queue'):.3f}",
        "Server-Timing": ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in durations.items()),
    }
