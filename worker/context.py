"""The common needs of the threads that process jobs, besides the engine."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from jobs.queue.claimed_videos import ClaimedVideos
from jobs.storage.artifact_store import ArtifactStore
from jobs.telemetry import log_context
from jobs.videos.record import VideoRecord
from worker.metrics import Meter


@dataclass(frozen=True)
class WorkerContext:
    """Clients of the shared stores. All are thread-safe. `worker` is the name under which the worker owns videos."""

    worker: str
    store: ClaimedVideos
    artifacts: ArtifactStore
    max_attempts: int
    meter: Meter


def log_about(record: VideoRecord) -> AbstractContextManager[None]:
    """Add the ids of a video and of the HTTP request that created it to the log lines of a block."""
    return log_context.about(video_id=record.id, request_id=record.request_id, traceparent=record.traceparent)
