"""What happens to a video, told to whoever follows it.

Each change of a record that `jobs/store.py` makes also appends to a Redis stream of that video, in the same script or
MULTI, and rings a bell: a message on one channel, with the video's id and nothing else. The stream is the truth, the
bell only says where to look; who missed a ring reads the stream and has missed nothing.

A stream is short, and goes an hour after its video has ended: the record tells the rest.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from redis import Redis
from redis.client import Pipeline

from jobs.records import Status, VideoRecord

EventName = Literal["queued", "progress", "completed", "failed"]
Position = tuple[int, int]
"""Where an entry stands in its stream: milliseconds by Redis's clock, and a number among those of one millisecond."""

START: Position = (0, 0)
BELL = "framedit:events"
EVENT_OF: dict[Status, EventName] = {
    "queued": "queued",
    "in_progress": "progress",
    "completed": "completed",
    "failed": "failed",
}
_MAX_ENTRIES = 64
_KEPT_SECONDS = 3600

# Lua, for the scripts of the store. `data` is the JSON of the event's own fields.
TELL = f"""
local function tell(stream, video_id, name, data)
  redis.call('XADD', stream, 'MAXLEN', {_MAX_ENTRIES}, '*', 'name', name, 'data', data)
  if name == 'completed' or name == 'failed' then redis.call('EXPIRE', stream, {_KEPT_SECONDS}) end
  redis.call('PUBLISH', '{BELL}', video_id)
end
"""


@dataclass(frozen=True)
class VideoEvent:
    """`progress` has data of its own (step, steps, eta_seconds, preview); what the others tell is in the record."""

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
    """Of a `progress` event: the record's step after the change, and when the rest will be done at this pace."""
    step, steps = change["step"], change.get("steps", record.steps)
    data = {"progress": change["progress"], "step": step, "steps": steps, "eta_seconds": None}
    if step and record.started_at is not None:
        data["eta_seconds"] = round((time.time() - record.started_at) / step * (steps - step), 2)
    return data if preview is None else data | {"preview": preview}


def stream_key(video_id: str) -> str:
    return f"framedit:events:{video_id}"


def tell(pipe: Pipeline, video_id: str, name: EventName) -> None:
    """As `TELL` does, in the caller's MULTI; for events that are not the last."""
    pipe.xadd(stream_key(video_id), {"name": name, "data": "{}"}, maxlen=_MAX_ENTRIES, approximate=False)
    pipe.publish(BELL, video_id)


def read_events(redis: Redis, video_id: str) -> Sequence[VideoEvent]:
    """All that the stream of a video still holds, oldest first."""
    return parse_entries(cast(list[Any], redis.xrange(stream_key(video_id))))


def parse_entries(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[VideoEvent]:
    """What XRANGE answers."""
    return [
        VideoEvent(_split(raw_id.decode()), cast(EventName, fields[b"name"].decode()), json.loads(fields[b"data"]))
        for raw_id, fields in entries
    ]


def parse_position(event_id: str) -> Position | None:
    """The position that an event's id spells, None for what is no such id."""
    parts = event_id.split("-")
    is_id = len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts)
    return _split(event_id) if is_id else None


def _split(event_id: str) -> Position:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)
