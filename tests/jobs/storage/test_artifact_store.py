import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ArtifactStoreError
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore

VIDEO_ID = "video_060a24181e40002c9f156b4144d5d9ab"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "made.mp4"
    source.write_bytes(b"frames" * 1000)
    return source


def test_a_stored_file_is_whole_and_alone(artifacts_dir: Path, source: Path) -> None:
    store = ArtifactStore(artifacts_dir)
    artifact = store.write(VIDEO_ID, "video", source)
    assert artifact.num_bytes == 6000
    assert artifact.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    with store.open(VIDEO_ID) as stored:
        assert stored.read() == source.read_bytes()
    assert list(store.path(VIDEO_ID).parent.iterdir()) == [store.path(VIDEO_ID)]


def test_a_failed_write_keeps_the_old_file(artifacts_dir: Path, source: Path) -> None:
    store = ArtifactStore(artifacts_dir)
    store.write(VIDEO_ID, "video", source)
    with pytest.raises(ArtifactStoreError, match="No such file"):
        store.write(VIDEO_ID, "video", source.with_name("missing.mp4"))
    assert store.path(VIDEO_ID).read_bytes() == source.read_bytes()
    assert list(store.path(VIDEO_ID).parent.iterdir()) == [store.path(VIDEO_ID)]


def test_deleting_removes_every_kind_and_may_be_repeated(artifacts_dir: Path, source: Path) -> None:
    store = ArtifactStore(artifacts_dir)
    store.write(VIDEO_ID, "video", source)
    store.write(VIDEO_ID, "thumbnail", source)
    store.delete(VIDEO_ID)
    store.delete(VIDEO_ID)
    assert not store.exists(VIDEO_ID)
    assert [entry.name for entry in artifacts_dir.iterdir()] == [".framedit"]


def test_incomplete_files_of_killed_processes_are_removed_after_a_while(artifacts_dir: Path, source: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from jobs.storage.artifact_store import ArtifactStore\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ArtifactStore(sys.argv[1]).write(sys.argv[2], 'video', Path(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", script, str(artifacts_dir), VIDEO_ID, str(source)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    store = ArtifactStore(artifacts_dir)
    assert not store.exists(VIDEO_ID)
    assert store.remove_parts(older_than_seconds=3600) == 0
    assert store.remove_parts(older_than_seconds=-1) == 1
    store.write(VIDEO_ID, "video", source)
    assert store.remove_parts(older_than_seconds=-1) == 0


@pytest.mark.parametrize("video_id", ["../secret", "/etc/passwd", "", "video_0", VIDEO_ID + "/.."])
def test_an_invalid_id_never_becomes_a_path(artifacts_dir: Path, video_id: str) -> None:
    with pytest.raises(ArtifactStoreError, match="not the id of a video"):
        ArtifactStore(artifacts_dir).path(video_id)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, artifacts_dir: Path, source: Path) -> None:
    ArtifactStore(artifacts_dir).check_writable()
    blocked = ArtifactStore(source)  # a file where the folder should be, which stops even root
    with pytest.raises(ArtifactStoreError, match="cannot be written") as caught:
        blocked.check_writable()
    assert str(tmp_path) not in caught.value.message
    with pytest.raises(ArtifactStoreError, match="cannot store"):
        blocked.write(VIDEO_ID, "video", source)


def test_files_go_although_another_is_stored_meanwhile(
    artifacts_dir: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(artifacts_dir)
    store.write(VIDEO_ID, "video", source)
    rmdir = os.rmdir

    def too_late(path: str, **options: Any) -> None:
        monkeypatch.undo()
        store.write(VIDEO_ID, "thumbnail", source)
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", too_late)
    store.delete(VIDEO_ID)
    assert not store.path(VIDEO_ID).parent.exists()


class Outage:
    """A store that is away, and the clock by which it comes back: a file stands where its folder should."""

    def __init__(self, location: Path, seconds: float) -> None:
        self._location = location
        self._seconds = seconds
        self.now = 0.0
        self.tries = 1
        location.touch()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.tries += 1
        if self.now >= self._seconds and self._location.is_file():
            self._location.unlink()
            self._location.mkdir()


@pytest.mark.parametrize("seconds", [60, 75, 570])
def test_a_store_that_is_away_for_minutes_delays_a_file_by_little_more(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    outage = Outage(tmp_path / "store", seconds)
    monkeypatch.setattr("jobs.storage.artifact_store.time", outage)
    store = ArtifactStore(tmp_path / "store", Settings().artifact_retry_seconds)
    store.write(VIDEO_ID, "video", source)
    assert store.path(VIDEO_ID).read_bytes() == source.read_bytes()
    assert outage.now < seconds + 10
    assert outage.tries < 10 + seconds / 10  # it is not asked all the time


def test_an_outage_that_does_not_end_fails_the_attempt_in_the_time_that_is_set(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(tmp_path / "store", 1e9)
    monkeypatch.setattr("jobs.storage.artifact_store.time", outage)
    with pytest.raises(ArtifactStoreError, match="cannot store"):
        ArtifactStore(tmp_path / "store", Settings().artifact_retry_seconds).write(VIDEO_ID, "video", source)
    assert 580 < outage.now <= 600
