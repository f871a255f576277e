"""The finisher thread: decodes, encodes and stores videos during the denoising steps of others."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from jobs.storage.artifact_store import file_name
from jobs.videos.record import Timings, VideoRecord
from worker.device import peak_memory_bytes
from worker.messages import (
    Artifacts,
    CloseFinisher,
    DispatcherMessage,
    DropJob,
    FinisherMessage,
    FinishJob,
    Inbox,
    JobFailed,
    JobFinished,
    StopRetries,
)
from worker.output.passing_faults import Retry
from worker.output.provenance import DEFAULT_PROVENANCE, Provenance
from worker.output.scratch_folder import ScratchFolder, remove_abandoned_folders
from worker.output.video_files import write_video_files

# Stores the files in a folder, which is deleted afterwards. The function tells whether to stop before a retry.
Upload = Callable[[VideoRecord, Path, Callable[[], bool]], Artifacts]


class Finisher:
    """Finishes videos one after the other, in order of arrival, and posts the results to the dispatcher."""

    def __init__(
        self,
        inbox: Inbox[FinisherMessage],
        dispatcher: Inbox[DispatcherMessage],
        upload: Upload,
        retry: Retry,
        provenance: Provenance = DEFAULT_PROVENANCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An error of `upload` fails the video, as errors of decoding and encoding do."""
        self._inbox = inbox
        self._dispatcher = dispatcher
        self._upload = upload
        self._retry = replace(retry, pause=self._pause)
        self._provenance = provenance
        self._clock = clock
        self._scratch = ScratchFolder()
        self._waiting: dict[str, FinishJob] = {}
        self._current: str | None = None  # None also when the current job was dropped
        self._stops_retries = False
        self._is_closing = False

    def run(self) -> None:
        """Run until `CloseFinisher` arrives; jobs that wait then are forgotten."""
        remove_abandoned_folders()
        while not self._is_closing:
            self._receive(timeout_seconds=0.0 if self._waiting else None)
            if self._waiting and not self._is_closing:
                job = self._waiting.pop(next(iter(self._waiting)))
                self._current = job.request_id
                self._dispatcher.post(self._finish(job))
        self._scratch.close()

    def _receive(self, timeout_seconds: float | None) -> None:
        for message in self._inbox.receive(timeout_seconds):
            match message:
                case FinishJob():
                    self._waiting[message.request_id] = message
                case DropJob(request_id):
                    self._waiting.pop(request_id, None)
                    if request_id == self._current:
                        self._current = None
                case StopRetries():
                    self._stops_retries = True
                case CloseFinisher():
                    self._is_closing = True

    def _finish(self, job: FinishJob) -> JobFinished | JobFailed:
        try:
            with self._retry.run(self._scratch.new, "temporary folder could not be created") as name:
                folder = Path(name)
                decode_s, encode_s = _write_files(job, folder, self._retry, self._provenance)
                artifacts = self._upload(job.record, folder, self._should_stop)
            timings = Timings(denoise_s=job.denoise_seconds, decode_s=decode_s, encode_s=encode_s)
            return JobFinished(job.request_id, artifacts, timings, peak_memory_bytes(job.latents.device))
        except Exception as error:
            return JobFailed(job.request_id, error)

    def _should_stop(self) -> bool:
        """Whether to give up instead of retrying: the worker ends, or the current job was dropped."""
        self._receive(timeout_seconds=0.0)
        return self._stops_retries or self._current is None

    def _pause(self, seconds: float) -> bool:
        """Wait before a retry, and return whether to retry."""
        resume_at = self._clock() + seconds
        while not self._should_stop() and (remaining := resume_at - self._clock()) > 0:
            self._receive(remaining)
        return not self._should_stop()


def _write_files(job: FinishJob, folder: Path, retry: Retry, provenance: Provenance) -> tuple[float, float]:
    """Write the files of a job, on CUDA in a stream of its own: the engine's stream would make the steps wait."""

    def write() -> tuple[float, float]:
        return write_video_files(
            job.record.request,
            job.latents,
            job.decoder,
            folder / file_name(job.record.request.result_kind),
            folder,
            job.reference,
            retry,
            provenance,
            job.checkpoint,
        )

    if job.latents_ready is None:
        return write()
    stream = torch.cuda.Stream(job.latents.device)  # type: ignore[no-untyped-call]
    stream.wait_event(job.latents_ready)
    job.latents.record_stream(stream)
    with torch.cuda.stream(stream):
        return write()
