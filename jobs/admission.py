"""Whether new videos are taken: not when they would wait longer than somebody has set."""

import math
from collections.abc import Sequence

from redis import Redis

from jobs import queue
from jobs.errors import OverloadedError, TooManyQueuedError
from jobs.forecast import Outlook, read_outlook
from jobs.records import VideoRecord


def check_wait(redis: Redis, records: Sequence[VideoRecord], max_wait_seconds: float | None) -> None:
    """For records of one request, not yet created, of which the last is to get its seat in time.

    A wait that is not known, because no worker of the model has measured itself yet, is no reason to refuse.

    :raises TooManyQueuedError: when the wait would be too long for what the same owner has waiting.
    :raises OverloadedError: when it would be too long for what others have waiting.
    """
    if max_wait_seconds is None:
        return
    outlook = read_outlook(redis, records[0].request.model)
    name = queue.name_of(records[0])
    wait = _wait(outlook, name, records)
    if wait is None or wait <= max_wait_seconds:
        return
    without_own = Outlook(
        outlook.model, [line for line in outlook.lines if line.name != name], outlook.loads, outlook.backlog
    )
    retry_after_seconds = math.ceil(wait - max_wait_seconds)
    words = f"the wait would be about {wait:.0f} s, and may be at most {max_wait_seconds:.0f} s"
    wait_without_own = _wait(without_own, name, records[:1]) or 0.0
    if records[0].owner is not None and wait_without_own <= max_wait_seconds:
        raise TooManyQueuedError(f"you have too many videos waiting: {words}", retry_after_seconds)
    raise OverloadedError(f"too many videos are waiting: {words}", retry_after_seconds)


def _wait(outlook: Outlook, name: str, records: Sequence[VideoRecord]) -> float | None:
    """Until the last of `records` gets a seat, behind all that waits in its queue and the ones before it."""
    own_length = next((line.length for line in outlook.lines if line.name == name), 0)
    return outlook.wait_seconds(outlook.ahead(name, own_length).followed_by(records[:-1]))
