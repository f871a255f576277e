"""The record and the files of a job after each outcome."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import ArtifactStoreError, VideoNotFoundError
from jobs.queue.rq_adapter import Ending
from jobs.storage.artifact_store import PICTURES, ArtifactStore, file_name
from jobs.videos.record import Timings, VideoRecord
from tests.worker.conftest import Bench
from worker.dispatch.attempt_outcome import Stopped, conclude
from worker.errors import ModelUnavailableError, NoLongerWantedError, NotFiniteError
from worker.messages import JobFailed, JobFinished
from worker.output.artifact_upload import upload_artifacts
from worker.output.formats.ffmpeg import EncodeError, EncoderLostError


@pytest.fixture
def record(bench: Bench) -> VideoRecord:
    """In progress."""
    return start(bench, bench.queue())


def start(bench: Bench, record: VideoRecord) -> VideoRecord:
    started = bench.context.store.start(record.id, "w1")
    assert started is not None
    return started


def finish(bench: Bench, record: VideoRecord, tmp_path: Path) -> JobFinished:
    """Upload files with their kind as content."""
    for kind in ("video", *PICTURES):
        (tmp_path / file_name(kind)).write_text(kind)
    artifacts = upload_artifacts(bench.context, record, tmp_path, lambda: False)
    return JobFinished("request", artifacts, Timings(denoise_s=1.0))


def failed(error: Exception) -> JobFailed:
    return JobFailed("request", error)


def test_a_finished_video_is_completed_and_its_files_are_stored(
    bench: Bench, record: VideoRecord, tmp_path: Path
) -> None:
    outcome = finish(bench, record, tmp_path)
    assert [conclude(bench.context, record, outcome) for _ in range(2)] == [Ending.FINISHED] * 2
    after = bench.context.store.get(record.id)
    assert (after.status, after.progress, set(after.artifacts)) == ("completed", 100, {"video", *PICTURES})
    assert bench.context.artifacts.path(record.id).read_text() == "video"


@pytest.mark.parametrize("end", ["cancelled", "deleted"])
def test_a_video_that_is_no_longer_wanted_leaves_no_files(
    bench: Bench, record: VideoRecord, tmp_path: Path, end: str
) -> None:
    outcome = finish(bench, record, tmp_path)
    {"cancelled": bench.context.store.cancel, "deleted": bench.context.store.delete}[end](record.id)
    assert conclude(bench.context, record, outcome) is Ending.GONE
    assert not bench.context.artifacts.path(record.id).parent.exists()


def test_files_that_cannot_be_deleted_are_logged(
    bench: Bench, record: VideoRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(ArtifactStore):
        def delete(self, video_id: str) -> None:
            raise ArtifactStoreError(f"cannot remove the files of {video_id}")

    outcome = finish(bench, record, tmp_path)
    bench.context.store.cancel(record.id)
    conclude(replace(bench.context, artifacts=Stuck(tmp_path)), record, outcome)
    assert f"they are left behind: cannot remove the files of {record.id}" in caplog.text


def test_a_video_of_another_worker_keeps_its_files(bench: Bench, record: VideoRecord, tmp_path: Path) -> None:
    """The lease expired meanwhile. The other worker writes the same files, so they must stay."""
    outcome = finish(bench, record, tmp_path)
    store = bench.context.store
    assert store.requeue(record.id, "w1")
    assert store.start(record.id, "w2") is not None
    assert conclude(bench.context, record, outcome) is Ending.GONE
    after = store.get(record.id)
    assert (after.status, after.worker) == ("in_progress", "w2")
    assert bench.context.artifacts.exists(record.id)


def test_no_file_is_written_for_a_video_that_is_no_longer_wanted(
    bench: Bench, record: VideoRecord, tmp_path: Path
) -> None:
    assert bench.context.store.requeue(record.id, "w1")
    assert bench.context.store.start(record.id, "w2") is not None
    with pytest.raises(NoLongerWantedError):
        finish(bench, record, tmp_path)
    assert not bench.context.artifacts.path(record.id).parent.exists()
    assert conclude(bench.context, record, failed(NoLongerWantedError("gone"))) is Ending.GONE
    assert bench.context.store.get(record.id).status == "in_progress"


def test_a_video_that_is_handed_back_has_used_no_attempt_and_is_first_in_its_queue(bench: Bench) -> None:
    record, waiting = bench.queue(), bench.queue()
    bench.redis.lpop("rq:queue:framedit:tiny")
    started = start(bench, record)
    assert conclude(bench.context, started, Stopped.HANDED_BACK) is Ending.GONE
    after = bench.context.store.get(record.id)
    assert (after.status, after.attempts, after.worker, after.progress) == ("queued", 0, None, 0)
    assert bench.redis.lrange("rq:queue:framedit:tiny", 0, -1) == [record.id.encode(), waiting.id.encode()]


def test_a_video_that_the_operator_stops_fails(bench: Bench, record: VideoRecord) -> None:
    assert conclude(bench.context, record, Stopped.BY_OPERATOR) is Ending.STOPPED
    error = bench.context.store.get(record.id).error
    assert error is not None
    assert error.code == "stopped"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("class label 99"), "invalid_request", "class label 99"),
        (NotFiniteError(4, "ddim", 2.0), "not_finite", "try more steps"),
        (EncodeError("ffmpeg ended with status 1: out of luck"), "encode_failed", "out of luck"),
    ],
)
def test_a_permanent_error_fails_at_once(
    bench: Bench, record: VideoRecord, error: Exception, code: str, message: str
) -> None:
    assert conclude(bench.context, record, failed(error)) is Ending.FAILED
    after = bench.context.store.get(record.id)
    assert after.error is not None
    assert (after.status, after.error.code, after.attempts) == ("failed", code, 1)
    assert message in after.error.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ArtifactStoreError("no room"), "artifact_store"),
        (EncoderLostError("ffmpeg was killed by signal 9"), "encoder_lost"),
        (ModelUnavailableError("not now"), "model_unavailable"),
        (RuntimeError("CUDA error at /secret/path"), "internal_error"),
    ],
)
def test_a_fault_that_can_pass_is_retried_until_no_attempt_is_left(bench: Bench, error: Exception, code: str) -> None:
    record = bench.queue()
    for attempt in (1, 2):
        started = start(bench, record)
        assert conclude(bench.context, started, failed(error)) is Ending.GONE
        after = bench.context.store.get(record.id)
        assert (after.status, after.attempts) == ("queued", attempt)
    started = start(bench, record)
    assert conclude(bench.context, started, failed(error)) is Ending.FAILED
    stored = bench.context.store.get(record.id).error
    assert stored is not None
    assert stored.code == code
    assert "/secret" not in stored.message


def test_the_failure_of_a_deleted_video_is_ignored(bench: Bench, record: VideoRecord) -> None:
    bench.context.store.delete(record.id)
    assert conclude(bench.context, record, failed(ValueError("late"))) is Ending.GONE
    with pytest.raises(VideoNotFoundError):
        bench.context.store.get(record.id)
