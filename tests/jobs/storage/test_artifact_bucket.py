import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.errors import ArtifactFileMissingError, ArtifactStoreError
from jobs.storage.artifact_bucket import Bucket
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import new_video_id
from tests.bucket import BucketServer, serving_bucket

VIDEO_ID = new_video_id(1_700_000_000.0)
OTHER_ID = new_video_id(1_700_000_001.0)


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with serving_bucket(monkeypatch) as server:
        yield server


@pytest.fixture
def store(bucket_server: BucketServer) -> ArtifactStore:
    return ArtifactStore("s3://videos/framedit")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "made.mp4"
    source.write_bytes(os.urandom(6000))
    return source


def test_a_stored_file_is_read_back_from_any_position(store: ArtifactStore, source: Path) -> None:
    assert not store.exists(VIDEO_ID)
    artifact = store.write(VIDEO_ID, "video", source)
    assert artifact.num_bytes == 6000
    assert artifact.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert store.exists(VIDEO_ID)
    with store.open(VIDEO_ID) as stored:
        assert stored.read() == source.read_bytes()
        stored.seek(5000)
        assert stored.read(100) == source.read_bytes()[5000:5100]


def test_a_large_file_goes_up_in_parts(store: ArtifactStore, source: Path) -> None:
    source.write_bytes(os.urandom(1 << 20) * 17)
    artifact = store.write(VIDEO_ID, "video", source)
    with store.open(VIDEO_ID) as stored:
        assert hashlib.file_digest(stored, "sha256").hexdigest() == artifact.sha256
    with httpx.Client() as http:
        url = store.link(VIDEO_ID, "video", 60, "video/mp4", "inline")
        etag = http.get(url, headers={"range": "bytes=0-0"}).headers["etag"]
    assert etag.endswith('-3"')  # S3's mark of an object made of three parts


def test_ids_are_listed_and_files_removed(store: ArtifactStore, source: Path) -> None:
    assert list(store.video_ids()) == []
    store.write(VIDEO_ID, "video", source)
    store.write(VIDEO_ID, "thumbnail", source)
    store.write(OTHER_ID, "video", source)
    store.check_writable()
    assert set(store.video_ids()) == {VIDEO_ID, OTHER_ID}
    store.delete(VIDEO_ID)
    store.delete(VIDEO_ID)
    assert set(store.video_ids()) == {OTHER_ID}
    with pytest.raises(ArtifactFileMissingError):
        store.open(VIDEO_ID)


def test_a_link_needs_no_key_and_says_how_to_show_the_file(store: ArtifactStore, source: Path) -> None:
    store.write(VIDEO_ID, "video", source)
    url = store.link(VIDEO_ID, "video", 60, "video/mp4", 'inline; filename="a.mp4"')
    answer = httpx.get(url)
    assert answer.content == source.read_bytes()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == 'inline; filename="a.mp4"'


@pytest.fixture
def outage(bucket_server: BucketServer) -> Callable[[], bool]:
    """For `give_up`, which is asked after the first try has failed: the outage ends then."""
    asked = threading.Event()

    def give_up() -> bool:
        if not asked.is_set():
            asked.set()
            bucket_server.start()
        return False

    return give_up


@pytest.fixture
def patient(bucket_server: BucketServer) -> ArtifactStore:
    """As a worker uses it: it retries, and only while the store has the mark of the database."""
    ArtifactStore("s3://videos").set_mark("ours")
    return ArtifactStore("s3://videos", retry_seconds=120, expected_mark=lambda: "ours")


def test_an_outage_delays_a_file_and_loses_nothing(
    bucket_server: BucketServer, patient: ArtifactStore, outage: Callable[[], bool], source: Path
) -> None:
    bucket_server.stop()
    artifact = patient.write(VIDEO_ID, "video", source, outage)
    with ArtifactStore("s3://videos").open(VIDEO_ID) as stored:
        assert hashlib.file_digest(stored, "sha256").hexdigest() == artifact.sha256


def test_an_outage_delays_a_reader(
    bucket_server: BucketServer, patient: ArtifactStore, outage: Callable[[], bool], source: Path
) -> None:
    patient.write(VIDEO_ID, "reference", source)
    bucket_server.stop()
    assert patient.read(VIDEO_ID, "reference", outage) == source.read_bytes()


def test_a_store_that_goes_away_during_a_read_is_read_again(
    bucket_server: BucketServer,
    patient: ArtifactStore,
    outage: Callable[[], bool],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient.write(VIDEO_ID, "reference", source)
    opened: list[str] = []

    def open_then_stop(self: Bucket, name: str, original: Any = Bucket.open) -> Any:
        file = original(self, name)
        if not opened:
            bucket_server.stop()
        opened.append(name)
        return file

    monkeypatch.setattr(Bucket, "open", open_then_stop)
    assert patient.read(VIDEO_ID, "reference", outage) == source.read_bytes()
    assert opened == [f"{VIDEO_ID}/reference.rgb"] * 2


def test_a_missing_file_is_not_waited_for(patient: ArtifactStore) -> None:
    with pytest.raises(ArtifactFileMissingError, match="there is no such file"):
        patient.read(VIDEO_ID, "reference", lambda: pytest.fail("retried"))


def test_a_worker_that_has_to_end_does_not_wait_for_the_store(bucket_server: BucketServer, source: Path) -> None:
    bucket_server.stop()
    try:
        with pytest.raises(ArtifactStoreError, match="object store does not answer"):
            ArtifactStore("s3://videos", retry_seconds=1e9).write(VIDEO_ID, "video", source, lambda: True)
    finally:
        bucket_server.start()


def test_a_store_that_is_away_says_so_and_not_where_it_is(store: ArtifactStore, bucket_server: BucketServer) -> None:
    bucket_server.stop()
    try:
        for use in (store.check_writable, lambda: list(store.video_ids()), lambda: store.open(VIDEO_ID)):
            with pytest.raises(ArtifactStoreError, match="does not answer") as caught:
                use()
            assert "127.0.0.1" not in caught.value.message
    finally:
        bucket_server.start()


@pytest.mark.parametrize("location", ["ftp://videos/x", "s3://"])
def test_only_s3_is_spoken(location: str) -> None:
    with pytest.raises(ValueError, match="a folder or s3://bucket/prefix"):
        ArtifactStore(location)
