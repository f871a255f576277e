"""Waits for the end of a video on behalf of a request."""

import time

from fastapi import Request

from jobs.videos.events import START
from server.errors import StillRunningError
from server.events.event_hub import EventHub

# The client's connection is checked at least this often.
_CHECK_SECONDS = 1.0


async def wait_for_end(events: EventHub, video_id: str, request: Request, timeout_seconds: float) -> bool:
    """Wait until a video completes, fails or is deleted. False when the client disconnects first.

    :raises StillRunningError: at the timeout, and when this process shuts down.
    """
    deadline = time.monotonic() + timeout_seconds
    with events.subscribe(video_id, START) as subscription:
        await events.refresh(video_id)
        while not subscription.closed:
            left = deadline - time.monotonic()
            if left <= 0:
                raise StillRunningError(video_id, f"after {timeout_seconds:g} seconds")
            event = await subscription.next(min(left, _CHECK_SECONDS))
            if event is not None and event.is_last:
                return True
            if await request.is_disconnected():
                return False
    raise StillRunningError(video_id, "and this server is shutting down")
