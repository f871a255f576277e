"""Events of a video, for clients that follow it.

Each change of a record appends an event to a Redis stream of that video, in the same script, and publishes the video's
id on one channel. The message only says which stream to read, so a lost message loses no event.
A stream holds the last 64 events, and expires an hour after its video has ended: the record holds the result.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from redis import Redis

from jobs import redis_keys
from jobs.lua import read_lua
from jobs.videos.record import Status, VideoRecord

EventName = Literal["queued", "progress", "completed", "failed"]
Position = tuple[int, int]
"""The position of an event in its stream: milliseconds by Redis's clock, and a number within that millisecond."""

START: Position = (0, 0)
EVENT_OF: dict[Status, EventName] = {
    "queued": "queued",
    "in_progress": "progress",
    "completed": "completed",
    "failed": "failed",
}
PUBLISH_EVENT = read_lua(__file__, "publish_event")


@dataclass(frozen=True)
class VideoEvent:
    """An event. Only `progress` has data (step, steps, preview); the record has the rest."""

    position: Position
    name: EventName
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        return self.name in ("completed", "failed")

    @property
    def id(self) -> str:
        return f"{self.position[0]}-{self.position[1]}"


def progress_data(record: VideoRecord, change: dict[str, Any], preview: str | None = None) -> dict[str, Any]:
    """Return the data of a `progress` event: the step after the change."""
    step, steps = change["step"], change.get("steps", record.steps)
    # Servers of version 0.1 require `eta_seconds`; later ones compute it when they send the event.
    data = {"progress": change["progress"], "step": step, "steps": steps, "eta_seconds": None}
    return data if preview is None else data | {"preview": preview}


def read_events(redis: Redis, video_id: str) -> Sequence[VideoEvent]:
    """Return the events that the stream of a video still holds, oldest first."""
    return parse_entries(cast(list[Any], redis.xrange(redis_keys.events(video_id))))


def parse_entries(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[VideoEvent]:
    """Parse the answer of XRANGE."""
    return [
        VideoEvent(_split(raw_id.decode()), cast(EventName, fields[b"name"].decode()), json.loads(fields[b"data"]))
        for raw_id, fields in entries
    ]


def parse_position(event_id: str) -> Position | None:
    """Parse the id of an event; None when it is not one."""
    parts = event_id.split("-")
    is_id = len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts)
    return _split(event_id) if is_id else None


def _split(event_id: str) -> Position:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)
