"""A worker and the store of its references: a bucket that is away for a while, and a store that does not answer."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.queue.rq_adapter import leased_jobs
from jobs.storage.artifact_store import ArtifactStore
from tests.bucket import BucketServer, serving_bucket
from tests.mp4 import decode_mp4
from tests.worker.conftest import Bench, wait_for
from tests.worker.preparation.test_reference import make_frames, queue
from worker.generate import make_video
from worker.preparation import reference_reader

LOCATION = "s3://videos/made"


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with serving_bucket(monkeypatch) as server:
        yield server


@pytest.fixture
def in_bucket(bench: Bench, bucket_server: BucketServer) -> Bench:
    """Files are in the bucket. As in a deployment, a worker retries for minutes."""
    settings = bench.settings.model_copy(update={"artifacts": LOCATION, "artifact_retry_seconds": 120})
    return replace(bench, settings=settings, context=replace(bench.context, artifacts=ArtifactStore(LOCATION)))


def test_references_in_a_bucket_make_the_same_files(in_bucket: Bench, tmp_path: Path) -> None:
    image, video = make_frames(1), make_frames(4)
    queued = {
        "first": queue(in_bucket, image, tmp_path, "first"),
        "edit": queue(in_bucket, video, tmp_path, "edit", strength=0.5),
        "extend": queue(in_bucket, video, tmp_path, "extend", overlap_frames=2, num_frames=6),
    }
    in_bucket.run_until_empty(max_batch_rows=1)
    for name, record in queued.items():
        after = in_bucket.context.store.get(record.id)
        assert after.status == "completed", after.error
        (tmp_path / name).write_bytes(in_bucket.context.artifacts.read(record.id, "video"))
        plain = tmp_path / f"{name}-plain"
        make_video(record.request, in_bucket.models["tiny"], plain, reference=image if name == "first" else video)
        assert (decode_mp4(tmp_path / name).frames == decode_mp4(plain).frames).all(), name


def test_an_outage_of_the_store_costs_no_attempt(
    in_bucket: Bench, bucket_server: BucketServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_bucket.queue()
    in_bucket.run_until_empty()  # the store is now that of this database
    records = [queue(in_bucket, make_frames(1), tmp_path, use) for use in ("first", "last")]
    bucket_server.stop()
    with in_bucket.working():
        try:
            wait_for(lambda: f"cannot read the reference of {records[0].id}" in caplog.text)
        finally:
            bucket_server.start()
        for record in records:
            after = in_bucket.wait_until(record, "completed", "failed")
            assert (after.status, after.attempts, after.error) == ("completed", 1, None)


class Gate:
    """Reads of the store that end when the test lets them."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._original = original

    def read_reference(self, *arguments: Any) -> Any:
        self.reached.set()
        assert self.opened.wait(60)
        return self._original(*arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(reference_reader.read_reference)
    monkeypatch.setattr(reference_reader, "read_reference", gate.read_reference)
    yield gate
    gate.opened.set()


def test_a_store_that_does_not_answer_delays_no_other_video(bench: Bench, gate: Gate, tmp_path: Path) -> None:
    slow = queue(bench, make_frames(1), tmp_path, "first")
    with bench.working():
        assert gate.reached.wait(60)
        bench.wait_until(bench.queue(), "completed")
        wait_for(lambda: leased_jobs(bench.redis) == {slow.id})
        [lease] = bench.redis.keys("rq:execution:*")
        before = bench.redis.pttl(lease)
        wait_for(lambda: bench.redis.pttl(lease) > before)
        gate.opened.set()
        assert bench.wait_until(slow, "completed").attempts == 1


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_video_that_is_no_longer_wanted_is_not_made(bench: Bench, gate: Gate, tmp_path: Path, end: str) -> None:
    unwanted = queue(bench, make_frames(1), tmp_path, "first")
    with bench.working() as running:
        assert gate.reached.wait(60)
        {"cancel": bench.context.store.cancel, "delete": bench.context.store.delete}[end](unwanted.id)
        wait_for(lambda: not leased_jobs(bench.redis))
        gate.opened.set()
        bench.wait_until(queue(bench, make_frames(1), tmp_path, "first"), "completed")
        running.request_stop()
        wait_for(lambda: running.has_ended)
    assert not bench.context.artifacts.exists(unwanted.id)


def test_a_worker_that_ends_does_not_wait_for_the_store(bench: Bench, gate: Gate, tmp_path: Path) -> None:
    slow = queue(bench, make_frames(1), tmp_path, "first")
    with bench.working(drain_seconds=3600) as running:
        assert gate.reached.wait(60)
        started = time.monotonic()
        running.request_stop(2)
        wait_for(lambda: running.has_ended)
        assert time.monotonic() - started < 30
    after = bench.context.store.get(slow.id)
    assert (after.status, after.attempts) == ("queued", 0)
