"""What happens to a video, as server-sent events."""

from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel, Field

from jobs.events import EVENT_OF, START, Position, VideoEvent, parse_position, progress_data, read_events
from jobs.records import VideoError, VideoRecord
from server.auth import REFUSALS, ReaderDep, find_visible
from server.dependencies import Services, ServicesDep
from server.errors import documented
from server.event_hub import DELETED
from server.routes.videos import show

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

HEARTBEAT_SECONDS = 10.0
_RECONNECT_MILLISECONDS = 1000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Progress(BaseModel):
    """The data of a `progress` event."""

    id: str
    object: Literal["video.progress"] = "video.progress"
    status: Literal["in_progress"] = "in_progress"
    progress: int = Field(ge=0, le=99)
    step: int = Field(description="denoising steps that are done")
    steps: int
    eta_seconds: float | None = Field(description="until the last step, at the pace so far")
    preview: str | None = Field(default=None, description="a small picture of what it will be, as a data URL")


class Deleted(BaseModel):
    """The data of the `failed` event of a video that was deleted meanwhile."""

    id: str
    object: Literal["video"] = "video"
    status: Literal["failed"] = "failed"
    error: VideoError


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["queued", "progress", "completed", "failed"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "For `Last-Event-ID`"},
        "retry": {"type": "integer", "description": "Milliseconds after which to come back"},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "`queued`, `completed` and `failed` carry the video object, `progress` an object of its own (`step`, "
            "`steps`, `eta_seconds`, now and then `preview`, a picture as a data URL)"
        ),
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    },
    204: {"description": "The client has been told the end already (`Last-Event-ID`): it need not ask again"},
    **documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
}


@router.get("/{video_id}/events", response_class=Response, responses=_RESPONSES)
def video_events(
    video_id: str,
    caller: ReaderDep,
    services: ServicesDep,
    last_event_id: Annotated[str, Header(description="Go on after this event; browsers send it by themselves")] = "",
) -> Response:
    """Follow a video: its present state first, then each change, until `completed` or `failed`, which is the last.

    With `Last-Event-ID` it begins with what came after that event.
    """
    # The stream before the record: what happens in between is told twice rather than not at all.
    events = read_events(services.redis, video_id)
    record = find_visible(services, caller, video_id)
    told = parse_position(last_event_id)
    missed = [event for event in events if told is not None and event.position > told]
    newest = events[-1].position if events else START
    if not missed and told is not None and told >= newest and record.status in ("completed", "failed"):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    first = missed or [_present(record, events, newest)]
    return EventSourceResponse(_stream(services, video_id, first, newest), headers=_HEADERS)


def _present(record: VideoRecord, events: Sequence[VideoEvent], position: Position) -> VideoEvent:
    """What is so now, as if it had just happened."""
    data = progress_data(record, record.model_dump())
    previews = [event.data["preview"] for event in events if "preview" in event.data]
    if previews and record.status == "in_progress":
        data["preview"] = previews[-1]
    return VideoEvent(position, EVENT_OF[record.status], data)


async def _stream(
    services: Services, video_id: str, first: Sequence[VideoEvent], position: Position
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RECONNECT_MILLISECONDS)
    for event in first:
        yield await _frame(services, video_id, event)
    if first[-1].is_last:
        return
    latest = first[-1]
    with services.events.watch(video_id, position) as watcher:
        await services.events.refresh(video_id)  # what came before there was a watcher
        while not latest.is_last:
            news = await watcher.next(HEARTBEAT_SECONDS)
            if watcher.closed:
                return
            if news is None and latest.name != "queued":
                yield KEEPALIVE_COMMENT
                continue
            latest = news or latest  # who waits is told its place anew
            yield await _frame(services, video_id, latest)


async def _frame(services: Services, video_id: str, event: VideoEvent) -> bytes:
    if event.name == "progress":
        data = Progress(id=video_id, **event.data).model_dump_json()
        return format_sse_event(event=event.name, data_str=data, id=event.id)
    return await run_in_threadpool(_video_frame, services, video_id, event)


def _video_frame(services: Services, video_id: str, event: VideoEvent) -> bytes:
    record = None if event is DELETED else services.store.find(video_id)
    if record is None:
        error = VideoError(code="deleted", message="the video was deleted")
        return format_sse_event(event="failed", data_str=Deleted(id=video_id, error=error).model_dump_json())
    if EVENT_OF[record.status] != event.name:
        return KEEPALIVE_COMMENT  # it has gone on meanwhile, which is told next
    data = show(services, record)[0].model_dump_json()
    return format_sse_event(event=event.name, data_str=data, id=event.id)
