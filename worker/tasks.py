"""What a worker does with a claimed job: the life of one video from its record to its file."""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from jobs import log_context
from jobs.artifacts import KINDS, ArtifactStore, file_name
from jobs.errors import ArtifactStoreError, FrameditError, VideoNotFoundError
from jobs.records import Artifact, ArtifactKind, Timings, VideoRecord
from jobs.store import VideoStore
from worker.errors import NoLongerWantedError, ShuttingDownError
from worker.generate import make_video
from worker.metrics import Meter
from worker.resident import ResidentModel

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
# How long a worker that is asked to stop goes on trying to tell Redis what became of its video.
_FAREWELL_SECONDS = 5.0

Answer = TypeVar("Answer")
Artifacts = Mapping[ArtifactKind, Artifact]


@dataclass(frozen=True)
class Workplace:
    """What a task works with. `worker` is the name under which it owns videos, `stopping` whether it has to end."""

    worker: str
    models: Mapping[str, ResidentModel]
    store: VideoStore
    artifacts: ArtifactStore
    max_attempts: int
    stopping: Callable[[], bool]
    meter: Meter


def generate(place: Workplace, video_id: str) -> None:
    """Make the video and bring its record to an end, or back to the queue.

    Raises nothing that is the request's fault: a video that fails, fails alone. Raises `RedisError` only when asked to
    stop while Redis is away; the video is then recovered when its lease ends.
    """
    record = _patiently(place, lambda: place.store.start(video_id, place.worker))
    if record is None:
        logger.info("%s: not to be made any more", video_id)
        return
    with log_context.about(video_id=video_id, request_id=record.request_id, traceparent=record.traceparent):
        _generate(place, record)


def _generate(place: Workplace, record: VideoRecord) -> None:
    video_id = record.id
    logger.info("%s: started on %s, attempt %d", video_id, record.request.model, record.attempts)
    place.meter.started(record)
    try:
        artifacts, timings = _make(place, record)
    except NoLongerWantedError:
        logger.info("%s: stopped, it is no longer wanted", video_id)
    except ShuttingDownError:
        _patiently(place, lambda: place.store.requeue(video_id, place.worker, used_attempt=False))
        logger.info("%s: handed back to the queue", video_id)
    except Exception as error:
        _fail(place, record, error)
    else:
        _deliver(place, record, artifacts, timings)


def _make(place: Workplace, record: VideoRecord) -> tuple[Artifacts, Timings]:
    with tempfile.TemporaryDirectory(prefix="framedit-") as name:
        folder = Path(name)
        on_step = place.meter.timing_steps(record.request, _reporter(place, record.id))
        model = place.models[record.request.model]
        timings = make_video(record.request, model, folder / file_name("video"), on_step, folder)
        return {kind: place.artifacts.write(record.id, kind, folder / file_name(kind)) for kind in KINDS}, timings


def _reporter(place: Workplace, video_id: str) -> Callable[[int, int], None]:
    """What is done after each denoising step: progress into the record, and a look whether to go on."""
    next_try = 0.0

    def report(step: int, steps: int) -> None:
        nonlocal next_try
        if place.stopping():
            raise ShuttingDownError("the worker is stopping")
        if time.monotonic() < next_try:
            return
        try:
            wanted = place.store.progress(video_id, step, steps, place.worker)
        except RedisError as error:
            # The work is worth more than the report on it: go on, and see again in a while.
            logger.warning("%s: no progress reported, Redis is away: %s", video_id, error)
            next_try = time.monotonic() + 2 * _RETRY_SECONDS
            return
        if not wanted:
            raise NoLongerWantedError("cancelled, deleted, or given to another worker")

    return report


def _deliver(place: Workplace, record: VideoRecord, artifacts: Artifacts, timings: Timings) -> None:
    if _patiently(place, lambda: place.store.complete(record.id, artifacts, timings, place.worker)):
        logger.info("%s: completed, %s", record.id, _in_words(timings))
        place.meter.completed(record, timings)
        return
    logger.info("%s: finished, but no longer wanted", record.id)
    if not _patiently(place, lambda: _is_anothers(place, record.id)):
        try:
            place.artifacts.delete(record.id)
        except ArtifactStoreError as error:
            logger.warning("%s: its file is left behind: %s", record.id, error)


def _is_anothers(place: Workplace, video_id: str) -> bool:
    """Whether the video is or will be made by another worker, which writes the same file."""
    try:
        return place.store.get(video_id).status != "failed"
    except VideoNotFoundError:
        return False


def _fail(place: Workplace, record: VideoRecord, error: Exception) -> None:
    """Fail the video if it would fail again the same way, or has had its attempts; otherwise let it be tried again."""
    same_again = isinstance(error, ValueError | FrameditError) and not isinstance(error, ArtifactStoreError)
    if same_again:
        logger.warning("%s: failed: %s", record.id, error)
    else:
        logger.error("%s: attempt %d of %d failed", record.id, record.attempts, place.max_attempts, exc_info=error)
    if not same_again and record.attempts < place.max_attempts:
        _patiently(place, lambda: place.store.requeue(record.id, place.worker))
        return
    code, message = _explain(error, record.attempts)
    if _patiently(place, lambda: place.store.fail(record.id, code, message, place.worker)):
        place.meter.failed(record, code)


def _explain(error: Exception, attempts: int) -> tuple[str, str]:
    """Code and message for the client: of an unforeseen error only its kind, since its text may tell of the server."""
    if isinstance(error, FrameditError):
        return error.code, error.message
    if isinstance(error, ValueError):
        return "invalid_request", str(error)
    return "internal_error", f"the worker failed at this video {attempts} times, lastly with {type(error).__name__}"


def _patiently(place: Workplace, action: Callable[[], Answer]) -> Answer:
    """Do what the store's methods allow to be repeated until Redis answers."""
    give_up_at: float | None = None
    while True:
        try:
            return action()
        except RedisError as error:
            if place.stopping():
                give_up_at = give_up_at or time.monotonic() + _FAREWELL_SECONDS
                if time.monotonic() > give_up_at:
                    raise
            logger.warning("Redis is away, trying again: %s", error)
            time.sleep(_RETRY_SECONDS)


def _in_words(timings: Timings) -> str:
    return ", ".join(f"{name.removesuffix('_s')} {value:.2f} s" for name, value in timings if value is not None)
