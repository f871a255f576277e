"""The reader thread: reads the references of jobs from the artifact store, which may be slow or away for minutes.

The dispatcher must not wait for it, because it renews the leases.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jobs.errors import ArtifactStoreError
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import VideoRecord
from worker.context import log_about
from worker.messages import AdmitJob, Inbox, JobFailed


class ReferenceReader:
    """Reads one reference after the other. While the store is away, it retries, as long as writes are retried."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._inbox: Inbox[AdmitJob | None] = Inbox()
        self._results: Inbox[AdmitJob | JobFailed] = Inbox()
        self._waiting: deque[AdmitJob] = deque()
        self._is_closing = False

    def read(self, job: AdmitJob) -> None:
        """Read the reference of a job."""
        self._inbox.post(job)

    def receive(self) -> list[AdmitJob | JobFailed]:
        """Return the results since the last call: jobs with their references, and those without."""
        return self._results.receive()

    def close(self) -> None:
        """End the thread; it forgets the jobs that wait."""
        self._inbox.post(None)

    def run(self) -> None:
        while not self._should_stop(None if not self._waiting else 0.0):
            if self._waiting:
                self._results.post(self._result(self._waiting.popleft()))

    def _result(self, job: AdmitJob) -> AdmitJob | JobFailed:
        try:
            with log_about(job.record):
                return replace(job, reference=read_reference(self._artifacts, job.record, self._should_stop))
        except Exception as error:
            return JobFailed(job.request_id, error)

    def _should_stop(self, timeout_seconds: float | None = 0.0) -> bool:
        for job in self._inbox.receive(timeout_seconds):
            if job is None:
                self._is_closing = True
            else:
                self._waiting.append(job)
        return self._is_closing


def read_reference(
    artifacts: ArtifactStore, record: VideoRecord, give_up: Callable[[], bool] = lambda: False
) -> NDArray[np.uint8] | None:
    """Return the frames of a video's reference, None when it has none. `give_up` is that of `ArtifactStore.read`.

    Raises:
        ArtifactStoreError: When they cannot be read, or are damaged.
    """
    request = record.request
    if request.reference is None:
        return None
    frames = np.frombuffer(artifacts.read(record.id, "reference", give_up), np.uint8)
    shape = (request.reference.num_frames, request.height, request.width, 3)
    if frames.size != np.prod(shape):
        raise ArtifactStoreError(f"the reference of {record.id} is damaged: it has {frames.size} bytes")
    return frames.reshape(shape)
