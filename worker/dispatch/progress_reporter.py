"""Writes the progress of active jobs to Redis: steps, previews and snapshots."""

from jobs.queue.claimed_videos import StepsDone
from worker.context import WorkerContext
from worker.dispatch.active_jobs import ActiveJob, ActiveJobs
from worker.dispatch.attempt_outcome import Stopped


class ProgressReporter:
    def __init__(self, context: WorkerContext, jobs: ActiveJobs) -> None:
        self._context = context
        self._jobs = jobs

    def report(self) -> None:
        """Report steps and previews, and stop jobs that are no longer wanted. Raises `RedisError`."""
        jobs = self._jobs.running
        reports = [_steps_done(job) for job in jobs]
        answers = self._context.store.report(reports, self._context.worker)
        for job, report, is_wanted in zip(jobs, reports, answers, strict=True):
            job.reported_step = job.reported_step if report.step is None else report.step
            job.preview = None
            if not is_wanted and not job.is_denoised:  # the finisher checks before it stores files
                self._jobs.stop(job, Stopped.NO_LONGER_WANTED)

    def store_snapshot(self) -> None:
        """Store the snapshot of one job. Raises `RedisError`.

        One at a time: newer snapshots, which arrive while Redis is slow, replace those that are not stored yet, so
        memory stays bounded.
        """
        job = next((job for job in self._jobs.running if job.snapshot is not None), None)
        if job is not None and job.snapshot is not None:
            self._context.store.keep_snapshot(job.record.id, job.snapshot, self._context.worker)
            job.snapshot = None


def _steps_done(job: ActiveJob) -> StepsDone:
    """A preview goes with the current step, even if that step was reported before."""
    is_new = job.preview is not None or job.step != job.reported_step
    return StepsDone(job.record, job.step if is_new else None, job.preview)
