"""The finished files of a video into the artifact store."""

from collections.abc import Callable
from pathlib import Path

from redis.exceptions import RedisError

from jobs.storage.artifact_store import PICTURES, file_name
from jobs.videos.record import VideoRecord
from worker.context import WorkerContext, log_about
from worker.errors import NoLongerWantedError
from worker.messages import Artifacts


def upload_artifacts(
    context: WorkerContext, record: VideoRecord, folder: Path, should_stop: Callable[[], bool]
) -> Artifacts:
    """Store the finished files in `folder`. `should_stop` is called before each retry.

    Raises:
        NoLongerWantedError: Before anything is written, when the video was cancelled, deleted or given to another
            worker.
        ArtifactStoreError: When a file cannot be stored.
    """
    with log_about(record):
        if not _is_wanted(context, record, should_stop):
            raise NoLongerWantedError("cancelled, deleted, or given to another worker")
        kinds = (record.request.result_kind, *PICTURES)
        return {kind: context.artifacts.write(record.id, kind, folder / file_name(kind), should_stop) for kind in kinds}


def _is_wanted(context: WorkerContext, record: VideoRecord, should_stop: Callable[[], bool]) -> bool:
    """Check the record: it shows a lease that expired while this process was suspended. Without Redis nothing shows
    that the lease has expired, so the upload goes on."""
    try:
        return context.store.wanted(record.id, context.worker)
    except RedisError:
        return not should_stop()
