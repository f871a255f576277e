"""A worker's changes of the videos that it has claimed."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.queue.transitions import Transitions
from jobs.videos.record import Artifact, ArtifactKind, Timings, VideoRecord
from jobs.videos.store import VideoStore


@dataclass(frozen=True)
class StepsDone:
    """The progress of a video that a worker makes. `step` is None when nothing is new; `preview` is a data URL."""

    record: VideoRecord
    step: int | None
    preview: str | None = None


class ClaimedVideos(VideoStore):
    """The records as a worker uses them.

    Changes carry the worker's name and are refused (False) once another worker has the video. Repeating a change is
    harmless and returns True again, so a worker may repeat one whose answer was lost.
    """

    def __init__(self, redis: Redis, video_ttl_seconds: int | None = None) -> None:
        super().__init__(redis)
        self._transitions = Transitions(redis, video_ttl_seconds)

    def start(self, video_id: str, worker: str) -> VideoRecord | None:
        """Move a video from queued to in progress and count an attempt. None when the video cannot be started."""
        record = self.find(video_id)
        if record is not None:
            fields = {"status": "in_progress", "worker": worker, "started_at": time.time(), "step": 0, "progress": 0}
            self._transitions.change(record, ("queued",), fields)
            record = self.find(video_id)
        is_mine = record is not None and record.status == "in_progress" and record.worker == worker
        return record if is_mine else None

    def report(self, reports: Sequence[StepsDone], worker: str) -> Sequence[bool]:
        """Write the progress of many videos; returns for each whether it still belongs to this worker."""
        with self._redis.pipeline(transaction=False) as pipe:
            for report in reports:
                record, step = report.record, report.step
                if step is None:
                    pipe.hmget(redis_keys.video(record.id), ["status", "worker"])
                else:
                    fields = _progress(step, record.steps)
                    self._transitions.change(record, ("in_progress",), fields, worker, report.preview, pipe)
            answers = pipe.execute()
        mine = [b'"in_progress"', json.dumps(worker).encode()]
        expected = [mine if report.step is None else mine[0] for report in reports]
        return [answer == wanted for answer, wanted in zip(answers, expected, strict=True)]

    def progress(
        self, video_id: str, step: int, steps: int, worker: str | None = None, preview: str | None = None
    ) -> bool:
        """Write the progress of one video: `step` of `steps` denoising steps are done.

        A preview is published with the event and not kept in the record.
        """
        record = self.find(video_id)
        if record is None:
            return False
        return self._transitions.change(record, ("in_progress",), _progress(step, steps), worker, preview)

    def keep_snapshot(self, video_id: str, content: bytes, worker: str) -> bool:
        """Replace the snapshot of a video, which is kept until the video ends."""
        return self._transitions.keep_snapshot(video_id, content, worker)

    def wanted(self, video_id: str, worker: str | None = None) -> bool:
        """Return whether a video is still in progress (at this worker): not cancelled, deleted or taken over."""
        answer = self._redis.hmget(redis_keys.video(video_id), ["status", "worker"])
        status, owner = cast(tuple[bytes | None, bytes | None], answer)
        return status == b'"in_progress"' and (worker is None or owner == json.dumps(worker).encode())

    def complete(
        self,
        video_id: str,
        artifacts: Mapping[ArtifactKind, Artifact],
        timings: Timings,
        worker: str | None = None,
        peak_memory_bytes: int | None = None,
    ) -> bool:
        """Move a video from in progress to completed. Call it once the files are in the artifact store.

        False when the video was cancelled, deleted or taken over. The caller then deletes the files, unless another
        worker makes the video.
        """
        record = self.find(video_id)
        files = {kind: artifact.model_dump() for kind, artifact in artifacts.items()}
        fields = {"artifacts": files, "timings": timings.model_dump(), "peak_memory_bytes": peak_memory_bytes}
        return record is not None and self._transitions.complete(record, fields, worker)

    def fail(self, video_id: str, code: str, message: str, worker: str | None = None) -> bool:
        """Move an unfinished video to failed. False when it has completed or does not exist."""
        record = self.find(video_id)
        return record is not None and self._transitions.fail(record, code, message, worker)

    def release(self, video_id: str, worker: str, used_attempt: bool) -> bool:
        """Move a video from in progress back to the front of its queue, with or without counting the attempt.

        The caller checks `attempts` first, and fails a video that has no attempt left.
        """
        record = self.find(video_id)
        return record is not None and self._transitions.requeue(record, "in_progress", worker, used_attempt)


def _progress(step: int, steps: int) -> dict[str, int]:
    # 100 means that the file is durable.
    return {"step": step, "steps": steps, "progress": min(99, 100 * step // max(1, steps))}
