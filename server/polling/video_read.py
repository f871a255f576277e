"""Reads one record through `BatchedRedis`, and says when the client should poll again."""

from collections.abc import Sequence
from typing import Any

from jobs import redis_keys
from jobs.admission.eta import Forecast
from jobs.errors import VideoNotFoundError
from jobs.videos.record import VideoRecord, is_video_id
from jobs.videos.store import read_record
from server.polling.batched_redis import Command

_MIN_PAUSE_MS, _DEFAULT_PAUSE_MS, _MAX_PAUSE_MS = 500, 1000, 5000
_POLLS_PER_WAIT = 20


def read_commands(video_id: str) -> list[Command]:
    """The commands that read the record of a video."""
    return [("HGETALL", redis_keys.video(video_id))] if is_video_id(video_id) else []


def parse_record(video_id: str, replies: Sequence[Any]) -> VideoRecord:
    """The record in the replies to `read_commands`.

    :raises VideoNotFoundError: when there is no such record, or it cannot be read.
    """
    raw = replies[0] if replies else {}
    # Version 2 of Redis's protocol has no maps: a hash is a flat list.
    record = read_record(video_id, raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True)))
    if record is None:
        raise VideoNotFoundError(video_id)
    return record


def poll_after_ms(forecast: Forecast) -> int:
    """The pause before the next poll: a twentieth of the expected wait, within bounds."""
    if forecast.eta_seconds is None:
        return _DEFAULT_PAUSE_MS
    return round(min(max(1000 * forecast.eta_seconds / _POLLS_PER_WAIT, _MIN_PAUSE_MS), _MAX_PAUSE_MS))
