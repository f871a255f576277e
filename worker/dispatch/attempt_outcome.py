"""The outcome of a job, written into its record: completed, failed, queued again, or dropped."""

import logging
from enum import Enum

from jobs.errors import ArtifactStoreError, FrameditError, VideoNotFoundError
from jobs.queue.rq_adapter import Ending
from jobs.videos.record import Timings, VideoRecord
from worker.context import WorkerContext, log_about
from worker.errors import ModelUnavailableError, NoLongerWantedError, OutOfDeviceMemoryError
from worker.messages import JobFailed, JobFinished
from worker.output.formats.ffmpeg import EncoderLostError

logger = logging.getLogger(__name__)

# Faults of the worker or its disk, not of the request: another attempt can succeed.
_RETRYABLE = (ArtifactStoreError, EncoderLostError, ModelUnavailableError, OutOfDeviceMemoryError)


class Stopped(Enum):
    """Why the dispatcher stopped a job."""

    HANDED_BACK = "handed back to the queue"
    BY_OPERATOR = "stopped by the operator"
    NO_LONGER_WANTED = "stopped, no longer wanted"


Outcome = JobFinished | JobFailed | Stopped


def conclude(context: WorkerContext, record: VideoRecord, outcome: Outcome) -> Ending:
    """Write the outcome of a job into its record, and return how the job ends for RQ.

    It may be repeated after a `RedisError`.
    """
    with log_about(record):
        match outcome:
            case JobFinished():
                return _complete(context, record, outcome)
            case JobFailed():
                return _fail_or_retry(context, record, outcome.error)
            case _:
                return _stop(context, record, outcome)


def _complete(context: WorkerContext, record: VideoRecord, finished: JobFinished) -> Ending:
    peak = finished.peak_memory_bytes
    if context.store.complete(record.id, finished.artifacts, finished.timings, context.worker, peak):
        logger.info("%s: completed, %s", record.id, _format(finished.timings))
        context.meter.completed(record, finished.timings)
        return Ending.FINISHED
    logger.info("%s: finished, but no longer wanted", record.id)
    if not _belongs_to_another_worker(context, record.id):
        try:
            context.artifacts.delete(record.id)
        except ArtifactStoreError as error:
            logger.warning("%s: files not deleted, they are left behind: %s", record.id, error)
    return Ending.GONE


def _belongs_to_another_worker(context: WorkerContext, video_id: str) -> bool:
    """Whether another worker makes or will make the video, and writes the same files."""
    try:
        return context.store.get(video_id).status != "failed"
    except VideoNotFoundError:
        return False


def _fail_or_retry(context: WorkerContext, record: VideoRecord, error: Exception) -> Ending:
    """Queue the video again, unless it would fail in the same way or has no attempts left."""
    if isinstance(error, NoLongerWantedError):
        return Ending.GONE
    is_permanent = isinstance(error, ValueError | FrameditError) and not isinstance(error, _RETRYABLE)
    if is_permanent:
        logger.warning("%s: failed: %s", record.id, error)
    else:
        logger.error("%s: attempt %d of %d failed", record.id, record.attempts, context.max_attempts, exc_info=error)
    if not is_permanent and record.attempts < context.max_attempts:
        context.store.release(record.id, context.worker, used_attempt=True)
        return Ending.GONE
    code, message = _explain(error, record.attempts)
    if not context.store.fail(record.id, code, message, context.worker):
        return Ending.GONE
    context.meter.failed(record, code)
    return Ending.FAILED


def _stop(context: WorkerContext, record: VideoRecord, reason: Stopped) -> Ending:
    logger.info("%s: %s", record.id, reason.value)
    if reason is Stopped.BY_OPERATOR:
        message = "the operator of the server stopped the video"
        return Ending.STOPPED if context.store.fail(record.id, "stopped", message, context.worker) else Ending.GONE
    if reason is Stopped.HANDED_BACK:
        context.store.release(record.id, context.worker, used_attempt=False)
    return Ending.GONE


def _explain(error: Exception, attempts: int) -> tuple[str, str]:
    """Code and message for the client. The text of an unforeseen error is left out: it may describe the server."""
    if isinstance(error, FrameditError):
        return error.code, error.message
    if isinstance(error, ValueError):
        return "invalid_request", str(error)
    return "internal_error", f"all {attempts} attempts failed, the last one with {type(error).__name__}"


def _format(timings: Timings) -> str:
    return ", ".join(f"{name.removesuffix('_s')} {value:.2f} s" for name, value in timings if value is not None)
