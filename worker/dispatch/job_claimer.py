"""Claims jobs for free slots and starts them."""

import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from jobs.queue.claim import Claim, Claims
from jobs.queue.rq_adapter import Ending, VideoWorker
from jobs.videos.record import VideoRecord
from worker.context import WorkerContext, log_about
from worker.dispatch.active_jobs import ActiveJobs

logger = logging.getLogger(__name__)

# With so many videos at the finisher, denoising more of them would only pile up latents.
_MAX_FINISHING = 4
# The jobs in quarantine take one slot of so many, at least one.
_QUARANTINE_SHARE = 4
# A claim beyond a full pass waits here for its next step; another worker may have a free row for it.
_PAUSE_SECONDS = 0.1


class JobClaimer:
    """Keeps the claims that are not started yet, so that none is lost when Redis does not answer in between."""

    def __init__(
        self,
        claims: Claims,
        rq_worker: VideoWorker,
        context: WorkerContext,
        jobs: ActiveJobs,
        max_slots: int,
        max_batch_rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._claims = claims
        self._rq_worker = rq_worker
        self._context = context
        self._jobs = jobs
        self._max_slots = max_slots
        self._max_batch_rows = max_batch_rows
        self._clock = clock
        self._claimed: list[Claim] = []
        self._resume_at = 0.0

    @property
    def has_claimed(self) -> bool:
        """Whether there are claims that are not started."""
        return bool(self._claimed)

    @property
    def free_slots(self) -> int:
        return self._max_slots - self._jobs.num_denoising - len(self._claimed)

    @property
    def can_claim(self) -> bool:
        """Whether a job would be claimed now: a slot is free, and the finisher keeps up."""
        is_ready = self._clock() >= self._resume_at and self._jobs.num_finishing < _MAX_FINISHING
        return is_ready and self.free_slots > 0

    def claim(self) -> bool:
        """Claim and start the next job. Returns False when none waits. Raises `RedisError`."""
        claim = self._claims.take(self._allows_quarantined)
        if claim is None:
            return False
        self._rq_worker.hold(claim.lease)
        self._claimed.append(claim)
        self.start_claimed()
        if self._jobs.rows >= self._max_batch_rows:
            self._resume_at = self._clock() + _PAUSE_SECONDS
        return True

    def _allows_quarantined(self, record: VideoRecord) -> bool:
        """Whether a video in quarantine may be claimed: only one group at a time, or a death would not show which of
        them caused it."""
        groups = [job.record.quarantine_group for job in self._jobs]
        groups += [claim.record.quarantine_group for claim in self._claimed]
        quarantined = [group for group in groups if group is not None]
        has_slot = len(quarantined) < max(1, self._max_slots // _QUARANTINE_SHARE)
        return has_slot and all(group == record.quarantine_group for group in quarantined)

    def anything_waiting(self) -> bool:
        """Whether a job waits in a queue. Raises `RedisError`."""
        return self._claims.anything_waiting()

    def start_claimed(self) -> None:
        """Start every claimed job. Raises `RedisError`, after which it may be repeated."""
        while self._claimed:
            claim = self._claimed[0]
            record = _start(self._context, claim.record.id)
            snapshot = self._context.store.snapshot(claim.record.id) if record is not None else None
            del self._claimed[0]
            if record is None:
                end_lease(self._rq_worker, claim, Ending.GONE)
            else:
                self._jobs.admit(claim, record, snapshot)


def _start(context: WorkerContext, video_id: str) -> VideoRecord | None:
    """Move the record to in progress under this worker's name. None when the video is no longer wanted."""
    record = context.store.start(video_id, context.worker)
    if record is None:
        logger.info("%s: claimed, but no longer wanted", video_id)
        return None
    with log_about(record):
        logger.info("%s: started on %s, attempt %d", video_id, record.request.model, record.attempts)
        context.meter.started(record)
    return record


def end_lease(rq_worker: VideoWorker, claim: Claim, ending: Ending, message: str = "") -> None:
    """End the lease of a job whose record is up to date. Without Redis the lease expires by itself."""
    try:
        rq_worker.end(claim.lease, ending, message)
    except RedisError as error:
        logger.warning("%s: lease not released, it expires by itself: %s", claim.record.id, error)
