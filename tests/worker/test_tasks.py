"""One video from its record to its file, and all the ways in which that can end early."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

import worker.generate
import worker.tasks
from jobs.artifacts import KINDS, ArtifactStore
from jobs.errors import ArtifactStoreError, VideoNotFoundError
from jobs.records import Timings, VideoRequest
from jobs.store import VideoStore
from tests.mp4 import decode_mp4
from tests.worker.conftest import Bench
from worker.resident import ResidentModel
from worker.tasks import generate

OnStep = Callable[[int, int], None]


def during_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> list[int]:
    """Do something in the middle of denoising step `number`; the steps that were done."""
    make_video = worker.generate.make_video
    done: list[int] = []

    def wrapped(request: VideoRequest, model: ResidentModel, path: Path, on_step: OnStep, pictures: Path) -> Timings:
        def report(step: int, steps: int) -> None:
            done.append(step)
            if step == number:
                action()
            on_step(step, steps)

        return make_video(request, model, path, report, pictures)

    monkeypatch.setattr(worker.tasks, "make_video", wrapped)
    return done


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> Timings:
        raise error

    monkeypatch.setattr(worker.tasks, "make_video", fail)


def test_a_queued_video_is_completed_and_its_file_is_there(bench: Bench) -> None:
    record = bench.queue()
    generate(bench.place, record.id)
    after = bench.place.store.get(record.id)
    path = bench.place.artifacts.path(record.id)
    assert (after.status, after.progress, after.step, after.steps) == ("completed", 100, 4, 4)
    sizes = {kind: bench.place.artifacts.path(record.id, kind).stat().st_size for kind in KINDS}
    assert {kind: artifact.num_bytes for kind, artifact in after.artifacts.items()} == sizes
    assert all(seconds is not None and seconds > 0 for _, seconds in after.timings)
    assert decode_mp4(path).frames.shape == (4, 16, 16, 3)


def test_progress_is_in_the_record_while_it_is_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue()
    seen = []
    during_step(monkeypatch, 3, lambda: seen.append(bench.place.store.get(record.id)))
    generate(bench.place, record.id)
    assert [(s.status, s.step, s.steps, s.progress, s.worker) for s in seen] == [("in_progress", 2, 4, 50, "w1")]


def test_cancel_stops_at_the_next_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue()
    done = during_step(monkeypatch, 2, lambda: bench.place.store.cancel(record.id))
    generate(bench.place, record.id)
    error = bench.place.store.get(record.id).error
    assert error is not None
    assert error.code == "cancelled"
    assert done == [1, 2]
    assert not bench.place.artifacts.exists(record.id)


def test_delete_stops_at_the_next_step_and_nothing_comes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.queue()
    done = during_step(monkeypatch, 2, lambda: bench.place.store.delete(record.id))
    generate(bench.place, record.id)
    assert done == [1, 2]
    assert not bench.place.artifacts.path(record.id).parent.exists()
    with pytest.raises(VideoNotFoundError):
        bench.place.store.get(record.id)


def test_delete_while_the_file_is_stored_leaves_no_file(bench: Bench) -> None:
    record = bench.queue()

    class DeletedMeanwhile(ArtifactStore):
        def write(self, *args: object) -> object:  # type: ignore[override]
            artifact = super().write(*args)  # type: ignore[arg-type]
            if args[1] == "video":
                bench.place.store.delete(record.id)
            return artifact

    root = bench.place.artifacts.path(record.id).parent.parent
    generate(replace(bench.place, artifacts=DeletedMeanwhile(root)), record.id)
    assert not bench.place.artifacts.path(record.id).parent.exists()


def test_files_that_cannot_be_removed_are_left_behind(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    record = bench.queue()

    class CancelledMeanwhile(ArtifactStore):
        def write(self, *args: object) -> object:  # type: ignore[override]
            artifact = super().write(*args)  # type: ignore[arg-type]
            bench.place.store.cancel(record.id)
            return artifact

        def delete(self, video_id: str) -> None:
            raise ArtifactStoreError(f"cannot remove the files of {video_id}")

    root = bench.place.artifacts.path(record.id).parent.parent
    generate(replace(bench.place, artifacts=CancelledMeanwhile(root)), record.id)
    assert f"left behind: cannot remove the files of {record.id}" in caplog.text


def test_a_video_taken_by_another_worker_keeps_its_file(bench: Bench) -> None:
    """Its lease ended while it was made: the other worker writes the same file, which must not be taken away."""
    record = bench.queue()
    store = bench.place.store

    class TakenMeanwhile(ArtifactStore):
        def write(self, *args: object) -> object:  # type: ignore[override]
            artifact = super().write(*args)  # type: ignore[arg-type]
            assert store.requeue(record.id, "w1")
            assert store.start(record.id, "w2") is not None
            return artifact

    root = bench.place.artifacts.path(record.id).parent.parent
    generate(replace(bench.place, artifacts=TakenMeanwhile(root)), record.id)
    after = store.get(record.id)
    assert (after.status, after.worker) == ("in_progress", "w2")
    assert bench.place.artifacts.exists(record.id)


@pytest.mark.parametrize("before", ["cancelled", "deleted", "started by another"])
def test_what_is_not_to_be_made_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    record = bench.queue()
    store = bench.place.store
    {"cancelled": store.cancel, "deleted": store.delete, "started by another": lambda i: store.start(i, "w2")}[before](
        record.id
    )
    raising(monkeypatch, AssertionError("must not be made"))
    generate(bench.place, record.id)
    if before == "started by another":
        assert store.get(record.id).worker == "w2"


def test_a_stopping_worker_hands_it_back_without_using_up_an_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, record = bench.queue(), bench.queue()
    done = during_step(monkeypatch, 1, lambda: bench.stopping.append(True))
    generate(bench.place, record.id)
    after = bench.place.store.get(record.id)
    assert done == [1]
    assert (after.status, after.attempts, after.worker, after.progress) == ("queued", 0, None, 0)
    assert bench.redis.lrange("rq:queue:framedit:tiny", 0, -1) == [record.id.encode(), waiting.id.encode()]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [({"class_label": 99}, "invalid_request", "class label 99"), ({"sampler": "magic"}, "invalid_request", "magic")],
)
def test_a_request_that_would_fail_again_fails_at_once(
    bench: Bench, changes: dict[str, object], code: str, message: str
) -> None:
    record = bench.queue(**changes)
    generate(bench.place, record.id)
    after = bench.place.store.get(record.id)
    assert after.error is not None
    assert (after.status, after.error.code, after.attempts) == ("failed", code, 1)
    assert message in after.error.message


def test_a_failing_encoder_fails_the_video_with_what_it_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho out of luck >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    record = bench.queue()
    generate(bench.place, record.id)
    error = bench.place.store.get(record.id).error
    assert error is not None
    assert error.code == "encode_failed"
    assert "out of luck" in error.message


def test_an_unforeseen_error_is_tried_again_and_then_told_without_its_text(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.queue()
    raising(monkeypatch, RuntimeError("CUDA error at /secret/path"))
    for attempt in (1, 2):
        generate(bench.place, record.id)
        after = bench.place.store.get(record.id)
        assert (after.status, after.attempts) == ("queued", attempt)
    generate(bench.place, record.id)
    error = bench.place.store.get(record.id).error
    assert error is not None
    assert error.code == "internal_error"
    assert error.message == "the worker failed at this video 3 times, lastly with RuntimeError"


def test_a_store_that_cannot_be_written_is_tried_again_and_then_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = replace(bench.place, artifacts=ArtifactStore(tmp_path / "file"), max_attempts=2)
    record = bench.queue()
    generate(place, record.id)
    assert place.store.get(record.id).status == "queued"
    generate(place, record.id)
    error = place.store.get(record.id).error
    assert error is not None
    assert error.code == "artifact_store"
    assert str(tmp_path) not in error.message


class Flaky(VideoStore):
    """Redis is away for the next few calls of a method."""

    def __init__(self, redis: Redis, **outages: int) -> None:
        super().__init__(redis)
        self.outages = outages

    def _away(self, method: str) -> None:
        if self.outages.get(method, 0):
            self.outages[method] -= 1
            raise RedisConnectionError("away")

    def start(self, video_id: str, worker: str) -> object:  # type: ignore[override]
        self._away("start")
        return super().start(video_id, worker)

    def progress(self, video_id: str, step: int, steps: int, worker: str | None = None) -> bool:
        self._away("progress")
        return super().progress(video_id, step, steps, worker)

    def complete(self, *args: object) -> bool:  # type: ignore[override]
        self._away("complete")
        return super().complete(*args)  # type: ignore[arg-type]


def test_redis_gone_for_a_while_costs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.tasks, "_RETRY_SECONDS", 0.01)
    store = Flaky(bench.redis, start=2, progress=1, complete=3)
    record = bench.queue()
    done = during_step(monkeypatch, 0, lambda: None)
    generate(replace(bench.place, store=store), record.id)
    assert bench.place.store.get(record.id).status == "completed"
    assert done == [1, 2, 3, 4]
    assert set(store.outages.values()) == {0}


def test_a_stopping_worker_does_not_wait_for_redis_for_good(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.tasks, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(worker.tasks, "_FAREWELL_SECONDS", 0.05)
    record = bench.queue()
    bench.stopping.append(True)
    with pytest.raises(RedisConnectionError):
        generate(replace(bench.place, store=Flaky(bench.redis, start=10_000)), record.id)
    assert bench.place.store.get(record.id).status == "queued"
