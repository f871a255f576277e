"""What becomes of one job: its record and its files, whatever came of the work on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.artifacts import KINDS, ArtifactStore, file_name
from jobs.errors import ArtifactStoreError, VideoNotFoundError
from jobs.records import Timings, VideoRecord
from tests.worker.conftest import Bench
from worker.errors import ModelUnavailableError, NoLongerWantedError, NotFiniteError
from worker.tasks import Broken, Ending, Made, Stopped, conclude, start, store_files
from worker.video import EncodeError, EncoderLostError


@pytest.fixture
def record(bench: Bench) -> VideoRecord:
    """In progress."""
    started = start(bench.place, bench.queue().id)
    assert started is not None
    return started


def made(bench: Bench, record: VideoRecord, tmp_path: Path) -> Made:
    """With files that say which they are."""
    for kind in KINDS:
        (tmp_path / file_name(kind)).write_text(kind)
    return Made(store_files(bench.place, record, tmp_path, wanted=lambda: True), Timings(denoise_s=1.0))


def test_what_is_made_is_completed_once_and_its_files_are_there(
    bench: Bench, record: VideoRecord, tmp_path: Path
) -> None:
    outcome = made(bench, record, tmp_path)
    assert [conclude(bench.place, record, outcome) for _ in range(2)] == [Ending.FINISHED] * 2
    after = bench.place.store.get(record.id)
    assert (after.status, after.progress, set(after.artifacts)) == ("completed", 100, set(KINDS))
    assert bench.place.artifacts.path(record.id).read_text() == "video"


@pytest.mark.parametrize("end", ["cancelled", "deleted"])
def test_what_is_no_longer_wanted_leaves_no_files(bench: Bench, record: VideoRecord, tmp_path: Path, end: str) -> None:
    outcome = made(bench, record, tmp_path)
    {"cancelled": bench.place.store.cancel, "deleted": bench.place.store.delete}[end](record.id)
    assert conclude(bench.place, record, outcome) is Ending.GONE
    assert not bench.place.artifacts.path(record.id).parent.exists()


def test_files_that_cannot_be_removed_are_left_behind(
    bench: Bench, record: VideoRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(ArtifactStore):
        def delete(self, video_id: str) -> None:
            raise ArtifactStoreError(f"cannot remove the files of {video_id}")

    outcome = made(bench, record, tmp_path)
    bench.place.store.cancel(record.id)
    conclude(replace(bench.place, artifacts=Stuck(tmp_path)), record, outcome)
    assert f"left behind: cannot remove the files of {record.id}" in caplog.text


def test_a_video_taken_by_another_worker_keeps_its_files(bench: Bench, record: VideoRecord, tmp_path: Path) -> None:
    """The lease ended while it was made: the other worker writes the same files, which must not be taken away."""
    outcome = made(bench, record, tmp_path)
    store = bench.place.store
    assert store.requeue(record.id, "w1")
    assert store.start(record.id, "w2") is not None
    assert conclude(bench.place, record, outcome) is Ending.GONE
    after = store.get(record.id)
    assert (after.status, after.worker) == ("in_progress", "w2")
    assert bench.place.artifacts.exists(record.id)


def test_nothing_is_written_for_a_video_that_is_another_s(bench: Bench, record: VideoRecord, tmp_path: Path) -> None:
    with pytest.raises(NoLongerWantedError):
        store_files(bench.place, record, tmp_path, wanted=lambda: False)
    assert not bench.place.artifacts.path(record.id).parent.exists()
    assert conclude(bench.place, record, Broken(NoLongerWantedError("gone"))) is Ending.GONE
    assert bench.place.store.get(record.id).status == "in_progress"


@pytest.mark.parametrize("before", ["cancelled", "deleted", "started by another"])
def test_what_is_not_to_be_made_is_not_started(bench: Bench, before: str) -> None:
    record, store = bench.queue(), bench.place.store
    {"cancelled": store.cancel, "deleted": store.delete, "started by another": lambda i: store.start(i, "w2")}[before](
        record.id
    )
    assert start(bench.place, record.id) is None


def test_what_is_handed_back_has_used_no_attempt_and_is_next(bench: Bench) -> None:
    record, waiting = bench.queue(), bench.queue()
    bench.redis.lpop("rq:queue:framedit:tiny")
    started = start(bench.place, record.id)
    assert started is not None
    assert conclude(bench.place, started, Stopped.HANDED_BACK) is Ending.GONE
    after = bench.place.store.get(record.id)
    assert (after.status, after.attempts, after.worker, after.progress) == ("queued", 0, None, 0)
    assert bench.redis.lrange("rq:queue:framedit:tiny", 0, -1) == [record.id.encode(), waiting.id.encode()]


def test_what_the_operator_stops_has_failed(bench: Bench, record: VideoRecord) -> None:
    assert conclude(bench.place, record, Stopped.BY_OPERATOR) is Ending.STOPPED
    error = bench.place.store.get(record.id).error
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
def test_what_would_fail_again_fails_at_once(
    bench: Bench, record: VideoRecord, error: Exception, code: str, message: str
) -> None:
    assert conclude(bench.place, record, Broken(error)) is Ending.FAILED
    after = bench.place.store.get(record.id)
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
def test_what_may_pass_is_tried_again_and_then_told(bench: Bench, error: Exception, code: str) -> None:
    record = bench.queue()
    for attempt in (1, 2):
        started = start(bench.place, record.id)
        assert started is not None
        assert conclude(bench.place, started, Broken(error)) is Ending.GONE
        after = bench.place.store.get(record.id)
        assert (after.status, after.attempts) == ("queued", attempt)
    started = start(bench.place, record.id)
    assert started is not None
    assert conclude(bench.place, started, Broken(error)) is Ending.FAILED
    told = bench.place.store.get(record.id).error
    assert told is not None
    assert told.code == code
    assert "/secret" not in told.message


def test_a_failure_of_a_video_that_is_gone_is_nobody_s(bench: Bench, record: VideoRecord) -> None:
    bench.place.store.delete(record.id)
    assert conclude(bench.place, record, Broken(ValueError("late"))) is Ending.GONE
    with pytest.raises(VideoNotFoundError):
        bench.place.store.get(record.id)
