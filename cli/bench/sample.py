"""The measurement of one video."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["completed", "failed", "refused"]


@dataclass(frozen=True)
class Sample:
    """The outcome of one request. All times are in seconds.

    Attributes:
        group: The drawn values of the fields that vary; empty without any.
        sent_at: When the request was due, from the start of the load. The latencies count from here.
        outcome: `refused` if the server did not accept the request.
        accept_s: Until the answer to `POST /v1/videos`.
        queue_s: In the queue, as the server reports it; else until the first state that is not `queued`.
        first_progress_s: Until the first completed step or percent, or else the end.
        done_s: Until the video had ended.
        error: Code or message of a failure.
    """

    group: str
    sent_at: float
    outcome: Outcome
    accept_s: float | None = None
    queue_s: float | None = None
    first_progress_s: float | None = None
    done_s: float | None = None
    error: str | None = None
