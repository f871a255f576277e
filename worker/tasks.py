"""What is done with one job besides the denoising: its record, its files, and what becomes of it in the end."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jobs import log_context
from jobs.artifacts import KINDS, ArtifactStore, file_name
from jobs.errors import ArtifactStoreError, FrameditError, VideoNotFoundError
from jobs.records import Artifact, ArtifactKind, Timings, VideoRecord
from jobs.store import VideoStore
from worker.errors import ModelUnavailableError, NoLongerWantedError, OutOfDeviceMemoryError
from worker.metrics import Meter
from worker.video import EncoderLostError

logger = logging.getLogger(__name__)

Artifacts = Mapping[ArtifactKind, Artifact]

# What is wrong with the worker or its disk, not with the request: another try may go well.
_PASSING = (ArtifactStoreError, EncoderLostError, ModelUnavailableError, OutOfDeviceMemoryError)


@dataclass(frozen=True)
class Workplace:
    """What a task works with. `worker` is the name under which it owns videos."""

    worker: str
    store: VideoStore
    artifacts: ArtifactStore
    max_attempts: int
    meter: Meter


@dataclass(frozen=True)
class Made:
    """Its files are in the artifact store."""

    artifacts: Artifacts
    timings: Timings


@dataclass(frozen=True)
class Broken:
    """The work on it raised."""

    error: Exception


class Stopped(Enum):
    HANDED_BACK = "handed back to the queue"
    BY_OPERATOR = "stopped by a command"
    NO_LONGER_WANTED = "stopped, it is no longer wanted"


Outcome = Made | Broken | Stopped


class Ending(Enum):
    """What RQ is told of the job. `GONE`: nothing, the record says it all, or the job waits anew."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    GONE = "gone"


def start(place: Workplace, video_id: str) -> VideoRecord | None:
    """The record, in progress in this worker's name; None when it is not to be made any more. Raises `RedisError`."""
    record = place.store.start(video_id, place.worker)
    if record is None:
        logger.info("%s: not to be made any more", video_id)
        return None
    with about(record):
        logger.info("%s: started on %s, attempt %d", video_id, record.request.model, record.attempts)
        place.meter.started(record)
    return record


def store_files(place: Workplace, record: VideoRecord, folder: Path, wanted: Callable[[], bool]) -> Artifacts:
    """The finished files in `folder` into the artifact store.

    Raises `NoLongerWantedError` before anything is written, when the video is not this worker's to write any more.
    """
    with about(record):
        if not wanted():
            raise NoLongerWantedError("cancelled, deleted, or given to another worker")
        return {kind: place.artifacts.write(record.id, kind, folder / file_name(kind)) for kind in KINDS}


def conclude(place: Workplace, record: VideoRecord, outcome: Outcome) -> Ending:
    """Write into the record what came of it. Raises `RedisError`, after which it may be repeated."""
    with about(record):
        if isinstance(outcome, Made):
            return _complete(place, record, outcome)
        if isinstance(outcome, Broken):
            return _fail(place, record, outcome.error)
        logger.info("%s: %s", record.id, outcome.value)
        if outcome is Stopped.BY_OPERATOR:
            message = "the video was stopped by the operator of the server"
            return Ending.STOPPED if place.store.fail(record.id, "stopped", message, place.worker) else Ending.GONE
        if outcome is Stopped.HANDED_BACK:
            place.store.requeue(record.id, place.worker, used_attempt=False)
        return Ending.GONE


def _complete(place: Workplace, record: VideoRecord, made: Made) -> Ending:
    if place.store.complete(record.id, made.artifacts, made.timings, place.worker):
        logger.info("%s: completed, %s", record.id, _in_words(made.timings))
        place.meter.completed(record, made.timings)
        return Ending.FINISHED
    logger.info("%s: finished, but no longer wanted", record.id)
    if not _is_anothers(place, record.id):
        try:
            place.artifacts.delete(record.id)
        except ArtifactStoreError as error:
            logger.warning("%s: its files are left behind: %s", record.id, error)
    return Ending.GONE


def _is_anothers(place: Workplace, video_id: str) -> bool:
    """Whether the video is or will be made by another worker, which writes the same files."""
    try:
        return place.store.get(video_id).status != "failed"
    except VideoNotFoundError:
        return False


def _fail(place: Workplace, record: VideoRecord, error: Exception) -> Ending:
    """Fail the video if it would fail again the same way, or has had its attempts; otherwise let it be tried again."""
    if isinstance(error, NoLongerWantedError):
        return Ending.GONE
    same_again = isinstance(error, ValueError | FrameditError) and not isinstance(error, _PASSING)
    if same_again:
        logger.warning("%s: failed: %s", record.id, error)
    else:
        logger.error("%s: attempt %d of %d failed", record.id, record.attempts, place.max_attempts, exc_info=error)
    if not same_again and record.attempts < place.max_attempts:
        place.store.requeue(record.id, place.worker)
        return Ending.GONE
    code, message = _explain(error, record.attempts)
    if not place.store.fail(record.id, code, message, place.worker):
        return Ending.GONE
    place.meter.failed(record, code)
    return Ending.FAILED


def _explain(error: Exception, attempts: int) -> tuple[str, str]:
    """Code and message for the client: of an unforeseen error only its kind, since its text may tell of the server."""
    if isinstance(error, FrameditError):
        return error.code, error.message
    if isinstance(error, ValueError):
        return "invalid_request", str(error)
    return "internal_error", f"the worker failed at this video {attempts} times, lastly with {type(error).__name__}"


def about(record: VideoRecord) -> AbstractContextManager[None]:
    """What is logged meanwhile names the video and the request that asked for it."""
    return log_context.about(video_id=record.id, request_id=record.request_id, traceparent=record.traceparent)


def _in_words(timings: Timings) -> str:
    return ", ".join(f"{name.removesuffix('_s')} {value:.2f} s" for name, value in timings if value is not None)
