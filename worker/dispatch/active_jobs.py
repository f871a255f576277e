"""The jobs of this worker, as the dispatcher knows them from messages. Only its thread uses them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from jobs.admission.worker_load import Remaining
from jobs.cards import ModelCard
from jobs.queue.claim import Claim
from jobs.queue.deaths import Bystanders
from jobs.videos.record import VideoRecord
from worker.dispatch.attempt_outcome import Outcome, Stopped
from worker.messages import (
    AdmitJob,
    EvictJob,
    Inbox,
    JobDenoised,
    JobFailed,
    JobFinished,
    JobMessage,
    LoopMessage,
    LoopReport,
    PassChanged,
    PreparationChanged,
    PreviewMade,
    SnapshotTaken,
)
from worker.preparation.reference_reader import ReferenceReader


@dataclass(eq=False)
class ActiveJob:
    """A job from its start to its end in Redis.

    Attributes:
        preview: The last preview, until it is reported.
        snapshot: The last snapshot, until it is stored.
        has_stepped: A step of this execution is complete.
        is_denoised: All steps are complete; the finisher has the job.
        outcome: None while the job runs.
    """

    request_id: str
    claim: Claim
    record: VideoRecord
    step: int = 0
    reported_step: int = 0
    preview: str | None = None
    snapshot: bytes | None = None
    has_stepped: bool = False
    is_denoised: bool = False
    outcome: Outcome | None = None

    @property
    def remaining(self) -> Remaining:
        request = self.record.request
        return Remaining(model=request.model, cost=self.record.cost * request.remaining_share(self.step))


class ActiveJobs:
    """Admits jobs to the loop, evicts them, and follows their progress."""

    def __init__(self, loop: Inbox[LoopMessage], cards: Mapping[str, ModelCard], references: ReferenceReader) -> None:
        self._loop = loop
        self._references = references
        self._cards = cards
        self._jobs: dict[str, ActiveJob] = {}
        self._numbers = count(1)
        self._pass_members: frozenset[str] = frozenset()
        self._preparing: str | None = None

    def __iter__(self) -> Iterator[ActiveJob]:
        """A copy: jobs may be removed meanwhile."""
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def running(self) -> list[ActiveJob]:
        """The jobs without an outcome."""
        return [job for job in self if job.outcome is None]

    @property
    def num_denoising(self) -> int:
        return sum(not job.is_denoised for job in self)

    @property
    def num_finishing(self) -> int:
        return sum(job.is_denoised and job.outcome is None for job in self)

    @property
    def bystanders(self) -> Bystanders:
        """The videos that take part in no pass, and are neither prepared nor finished now."""
        working = {*self._pass_members, self._preparing}
        outside = [job for job in self if job.request_id not in working and not job.is_denoised]
        return Bystanders(
            idle=frozenset(job.record.id for job in outside if job.has_stepped),
            unstarted=frozenset(job.record.id for job in outside if not job.has_stepped),
        )

    @property
    def rows(self) -> int:
        """Rows of a pass of all jobs."""
        requests = [job.record.request for job in self]
        return sum(2 if self._cards[request.model].is_guided(request.guidance_scale) else 1 for request in requests)

    def admit(self, claim: Claim, record: VideoRecord, snapshot: bytes | None) -> None:
        """Add a started job and give it to the loop, once its reference is read if it has one."""
        request_id = f"{record.id}/{next(self._numbers)}"
        self._jobs[request_id] = ActiveJob(request_id, claim, record)
        message = AdmitJob(request_id, record, snapshot)
        if record.request.reference is None:
            self._loop.post(message)
        else:
            self._references.read(message)

    def receive_references(self) -> None:
        """Give the jobs to the loop whose references are read. One that could not be read is its job's outcome."""
        for message in self._references.receive():
            job = self._jobs.get(message.request_id)
            if isinstance(message, JobFailed):
                self.update(message)
            elif job is not None and job.outcome is None:  # otherwise stopped meanwhile
                self._loop.post(message)

    def stop(self, job: ActiveJob, reason: Stopped) -> None:
        """End a job before its result, and take it from the loop."""
        job.outcome = reason
        self._loop.post(EvictJob(job.request_id))

    def remove(self, job: ActiveJob) -> None:
        del self._jobs[job.request_id]

    def update(self, message: JobMessage) -> None:
        """Apply a message. It is ignored when the job has been removed."""
        job = self._jobs.get(message.request_id)
        if job is None:
            return
        match message:
            case PreviewMade():
                job.step, job.preview = max(job.step, message.step), message.url
            case SnapshotTaken():
                job.snapshot = message.content
            case JobDenoised():
                job.step, job.is_denoised = job.record.steps, True
            case JobFinished() | JobFailed():
                job.outcome = job.outcome or message

    def update_steps(self, report: LoopReport) -> None:
        for request_id, step in report.steps.items():
            if request_id in self._jobs:
                self._jobs[request_id].step = step
                self._jobs[request_id].has_stepped = True

    def update_pass(self, message: PassChanged) -> None:
        self._pass_members = message.request_ids

    def update_preparation(self, message: PreparationChanged) -> None:
        self._preparing = message.request_id
