"""The route that streams the events of a video."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from redis.exceptions import RedisError

from jobs.videos.events import EVENT_OF, START, Position, VideoEvent, parse_position, progress_data, read_events
from jobs.videos.record import VideoRecord
from server.auth import REFUSALS, Credentials, ReaderDep, find_visible, is_still_reader
from server.dependencies import Services, ServicesDep
from server.errors import documented
from server.events.event_frames import EventFrames
from server.events.event_hub import Subscription

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)

HEARTBEAT_SECONDS = 10.0
_REDIS_RETRY_SECONDS = 1.0
_RECONNECT_MILLISECONDS = 1000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["queued", "progress", "completed", "failed"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "For `Last-Event-ID`"},
        "retry": {"type": "integer", "description": "Milliseconds to wait before reconnecting"},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "`queued`, `completed` and `failed` carry the video object, `progress` an object of its own (`step`, "
            "`steps`, `eta_seconds`, and from time to time `preview`, a picture as a data URL)"
        ),
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    },
    204: {"description": "The client already has the last event (`Last-Event-ID`) and must not reconnect"},
    **documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
}


@router.get("/{video_id}/events", response_class=Response, responses=_RESPONSES)
def video_events(
    video_id: str,
    caller: ReaderDep,
    services: ServicesDep,
    credentials: Credentials,
    last_event_id: Annotated[str, Header(description="Resume after this event; browsers send it themselves")] = "",
) -> Response:
    """Follow a video: its present state, then each change, up to the last event, `completed` or `failed`.

    With `Last-Event-ID` the stream resumes after that event. It ends when your API key expires or is revoked.
    """
    # The events before the record: a change between the two reads is sent twice rather than lost.
    events = read_events(services.redis, video_id)
    record = find_visible(services, caller, video_id)
    is_over = record.status in ("completed", "failed")
    if is_over and not (events and events[-1].is_last):  # it ended between the reads
        events = read_events(services.redis, video_id)
    resumed_from = parse_position(last_event_id)
    missed = [event for event in events if resumed_from is not None and event.position > resumed_from]
    newest = events[-1].position if events else START
    if is_over and not missed and resumed_from is not None and resumed_from >= newest:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    first = missed or [_present_state(record, events, newest)]
    return EventSourceResponse(
        _stream(services, record, first, newest, partial(is_still_reader, services, caller, credentials)),
        headers=_HEADERS,
    )


def _present_state(record: VideoRecord, events: Sequence[VideoEvent], position: Position) -> VideoEvent:
    """An event that describes the record as it is now."""
    data = progress_data(record, record.model_dump())
    previews = [event.data["preview"] for event in events if "preview" in event.data]
    if previews and record.status == "in_progress":
        data["preview"] = previews[-1]
    return VideoEvent(position, EVENT_OF[record.status], data)


async def _stream(
    services: Services,
    record: VideoRecord,
    first: Sequence[VideoEvent],
    position: Position,
    is_allowed: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    frames = EventFrames(services.redis, services.store, services.forecasts, record)
    yield format_sse_event(retry=_RECONNECT_MILLISECONDS)
    with services.events.subscribe(record.id, position) as subscription:
        async for event in _events(services, record.id, first, subscription, is_allowed):
            if event is None:
                yield KEEPALIVE_COMMENT
                continue
            async for frame in _frames_when_redis_answers(frames, record.id, event, subscription):
                yield frame


async def _events(
    services: Services,
    video_id: str,
    first: Sequence[VideoEvent],
    subscription: Subscription,
    is_allowed: Callable[[], Awaitable[bool]],
) -> AsyncIterator[VideoEvent | None]:
    """The events up to the last one, as long as the client is allowed to read them; None for a heartbeat."""
    for latest in first:
        yield latest
    if latest.is_last:
        return
    await services.events.refresh(video_id)  # events from before the subscription
    checked_at = time.monotonic()
    while not latest.is_last:
        event = await subscription.next(HEARTBEAT_SECONDS)
        if subscription.closed:
            return
        if time.monotonic() - checked_at >= HEARTBEAT_SECONDS:
            if not await is_allowed():
                return
            checked_at = time.monotonic()
        latest = event or latest
        # A heartbeat repeats a `queued` event with the current queue position.
        yield None if event is None and latest.name != "queued" else latest


async def _frames_when_redis_answers(
    frames: EventFrames, video_id: str, event: VideoEvent, subscription: Subscription
) -> AsyncIterator[bytes]:
    """The frame of an event, after heartbeats for as long as Redis does not answer."""
    is_logged = False
    while not subscription.closed:
        try:
            yield await frames.frame(event)
            return
        except RedisError as error:
            if not is_logged:
                logger.warning("%s: event stream waits for Redis: %s", video_id, error)
            is_logged = True
        yield KEEPALIVE_COMMENT
        await asyncio.sleep(_REDIS_RETRY_SECONDS)
