"""One request of a load, from its creation to the end of its video."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx

from cli.bench.sample import Sample
from cli.client.api_client import Client, Video
from cli.client.follow import follow
from jobs.errors import FrameditError

Fields = dict[str, Any]


@dataclass(frozen=True)
class Accepted:
    """The server has accepted request `number`."""

    number: int
    video_id: str


@dataclass(frozen=True)
class Started:
    """The video of request `number` has left the queue."""

    number: int


@dataclass(frozen=True)
class Ended:
    """Request `number` has been measured."""

    number: int
    sample: Sample


@dataclass(frozen=True)
class NotDeleted:
    """The server has refused to delete a video of the load."""

    reason: str


Report = Accepted | Started | Ended | NotDeleted


@dataclass(frozen=True)
class TimedRequest:
    """Sends one request and reports what becomes of it. `due` is on the clock of `time.monotonic`."""

    client: Client
    number: int
    body: Fields
    sample: Sample
    due: float
    report: Callable[[Report], None]
    delete: bool

    def run(self) -> None:
        """Create the video, follow it to its end, report the sample, and delete the video if asked to."""
        try:
            video_id = str(self.client.create(self.body)[0]["id"])
        except FrameditError as error:
            self.report(Ended(self.number, replace(self.sample, outcome="refused", error=error.message)))
            return
        self.report(Accepted(self.number, video_id))
        self.report(Ended(self.number, self._follow(video_id, self._elapsed())))
        if self.delete:
            self._delete(video_id)

    def _follow(self, video_id: str, accept_s: float) -> Sample:
        queue_s = first_progress_s = None
        state: dict[str, Any] = {}
        try:
            for state in follow(self.client, video_id):
                if queue_s is None and state["status"] != "queued":
                    queue_s = self._elapsed()
                    self.report(Started(self.number))
                if first_progress_s is None and (state.get("step") or state.get("progress")):
                    first_progress_s = self._elapsed()
        except (FrameditError, httpx.HTTPError) as error:
            return replace(self.sample, outcome="failed", accept_s=accept_s, error=str(error) or type(error).__name__)
        done_s = self._elapsed()
        completed = state["status"] == "completed"
        return replace(
            self.sample,
            outcome="completed" if completed else "failed",
            accept_s=accept_s,
            queue_s=_reported_queue_s(state, queue_s),
            first_progress_s=first_progress_s or done_s,
            done_s=done_s,
            error=None if completed else str((state.get("error") or {}).get("code", "unknown")),
        )

    def _delete(self, video_id: str) -> None:
        try:
            self.client.delete(video_id)
        except FrameditError as error:
            self.report(NotDeleted(error.message))

    def _elapsed(self) -> float:
        return time.monotonic() - self.due


def _reported_queue_s(video: Video, observed: float | None) -> float | None:
    reported = (video.get("timings") or {}).get("queue_s")
    return observed if reported is None else float(reported)
