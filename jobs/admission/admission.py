"""Admission: new videos are refused while they would wait longer than the server allows."""

import math
from collections.abc import Sequence
from dataclasses import replace

from redis import Redis

from jobs.admission.eta import QueueState, read_queue_state
from jobs.errors import OverloadedError, TooManyQueuedError
from jobs.queue.transitions import queue_of
from jobs.videos.record import VideoRecord


def check_wait(redis: Redis, records: Sequence[VideoRecord], max_wait_seconds: float | None) -> None:
    """Check that the last of these new records would get its slot in time; they are of one request.

    An unknown wait, because no worker of the model has measured its speed, refuses nothing.

    :raises TooManyQueuedError: when the owner's own waiting videos make the wait too long.
    :raises OverloadedError: when those of others do.
    """
    if max_wait_seconds is None:
        return
    state = read_queue_state(redis, records[0].request.model)
    name = queue_of(records[0])
    wait = _wait_seconds(state, name, records)
    if wait is None or wait <= max_wait_seconds:
        return
    without_own = replace(state, queues=[queue for queue in state.queues if queue.name != name])
    retry_after_seconds = math.ceil(wait - max_wait_seconds)
    reason = f"the wait would be about {wait:.0f} s, and may be at most {max_wait_seconds:.0f} s"
    wait_without_own = _wait_seconds(without_own, name, records[:1]) or 0.0
    if records[0].owner is not None and wait_without_own <= max_wait_seconds:
        raise TooManyQueuedError(f"you have too many videos waiting: {reason}", retry_after_seconds)
    raise OverloadedError(f"too many videos are waiting: {reason}", retry_after_seconds)


def _wait_seconds(state: QueueState, name: str, records: Sequence[VideoRecord]) -> float | None:
    """Return the time until the last of `records` gets a slot, behind its queue and the records before it."""
    length = next((queue.length for queue in state.queues if queue.name == name), 0)
    return state.wait_seconds(state.before(name, length).and_then(records[:-1]))
