"""A store that is not mounted is away: nothing is written to the folder beneath, and no video is lost."""

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.errors import ArtifactFileMissingError, ArtifactStoreError
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from jobs.videos.record import Timings, VideoRecord
from jobs.videos.store import VideoStore
from tests.full_disk import small_disk
from tests.jobs.every_role import EveryRole
from tests.jobs.making import make_record
from tests.server.serving import serving
from tests.waiting import wait_for

VIDEO_ID = f"video_{0:032x}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source.mp4"
    source.write_bytes(b"mp4")
    return source


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file system of its own mounted on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder) as is_mounted:
        if not is_mounted:
            pytest.skip("mounting is not permitted here")
        yield folder


@contextmanager
def unmounted(disk: Path, aside: Path) -> Iterator[None]:
    """The disk is gone: its mount point is an empty folder. It comes back with all its files."""
    aside.mkdir()
    subprocess.run(["mount", "--move", str(disk), str(aside)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "--move", str(aside), str(disk)], check=True)


def bound(redis: Redis, folder: Path, retry_seconds: float = 0.0) -> ArtifactStore:
    mark = StoreMark(redis)
    store = ArtifactStore(folder, retry_seconds, expected_mark=mark.expected)
    mark.bind(store)
    return store


def completed(store: EveryRole, artifacts: ArtifactStore, source: Path) -> VideoRecord:
    record = make_record()
    store.create(record)
    store.start(record.id, "w1")
    artifact = artifacts.write(record.id, "video", source)
    assert store.complete(record.id, {"video": artifact}, Timings(), "w1")
    return store.get(record.id)


def test_a_new_store_is_created_and_marked(redis: Redis, tmp_path: Path) -> None:
    store = bound(redis, tmp_path / "new" / "store")
    assert store.mark() == redis.get("framedit:artifacts").decode()
    assert redis.ttl("framedit:artifacts") == -1
    StoreMark(redis).bind(store)


def test_a_missing_folder_is_not_created_again(redis: Redis, store: VideoStore, tmp_path: Path, source: Path) -> None:
    artifacts = bound(redis, tmp_path / "store")
    record = make_record()
    (tmp_path / "store").rename(tmp_path / "aside")
    for use in (
        artifacts.check_writable,
        lambda: artifacts.write(record.id, "video", source),
        lambda: bound(redis, tmp_path / "store"),
        lambda: artifacts.exists(record.id),
    ):
        with pytest.raises(ArtifactStoreError, match=r"is away|cannot be written"):
            use()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("mark", [None, "another database's"])
def test_a_folder_with_a_missing_or_foreign_mark_is_away(
    redis: Redis, tmp_path: Path, source: Path, mark: str | None
) -> None:
    artifacts = bound(redis, tmp_path / "store")
    mark_file = tmp_path / "store" / ".framedit" / "database"
    own = mark_file.read_text()
    mark_file.unlink() if mark is None else mark_file.write_text(mark)
    record = make_record()
    with pytest.raises(ArtifactStoreError, match="is away"):
        artifacts.write(record.id, "video", source)
    with pytest.raises(ArtifactStoreError, match="is away"):
        StoreMark(redis).bind(artifacts)
    mark_file.write_text(own)
    artifacts.write(record.id, "video", source)
    assert artifacts.exists(record.id)


def test_a_store_of_version_0_1_is_marked_by_its_files(
    redis: Redis, store: EveryRole, artifacts_dir: Path, source: Path
) -> None:
    completed(store, ArtifactStore(artifacts_dir), source)
    assert bound(redis, artifacts_dir).mark() == redis.get("framedit:artifacts").decode()


def test_a_database_with_videos_does_not_adopt_an_empty_folder(
    redis: Redis, store: EveryRole, artifacts_dir: Path, tmp_path: Path, source: Path
) -> None:
    completed(store, ArtifactStore(artifacts_dir), source)
    with pytest.raises(ArtifactStoreError, match="is away"):
        bound(redis, tmp_path / "other")


def test_a_mark_whose_set_up_was_interrupted_is_set_again(redis: Redis, tmp_path: Path) -> None:
    redis.set("framedit:artifacts", "interrupted", ex=60)
    assert bound(redis, tmp_path / "store").mark() == "interrupted"
    assert redis.ttl("framedit:artifacts") == -1


def test_a_store_that_another_process_is_setting_up_is_used(redis: Redis, tmp_path: Path) -> None:
    class EndingMeanwhile(ArtifactStore):
        def mark(self) -> str | None:
            found = super().mark()
            self.set_mark("set up")
            redis.persist("framedit:artifacts")
            return found

    redis.set("framedit:artifacts", "set up", ex=60)
    StoreMark(redis).bind(EndingMeanwhile(tmp_path / "store"))
    assert (tmp_path / "store" / ".framedit" / "database").read_text() == "set up"


def test_a_store_that_another_process_sets_up_at_this_moment_is_used(redis: Redis, tmp_path: Path) -> None:
    class SetUpMeanwhile(ArtifactStore):
        def mark(self) -> str | None:
            bound(redis, tmp_path / "store")
            return super().mark()

    store = SetUpMeanwhile(tmp_path / "store")
    StoreMark(redis).bind(store)
    assert redis.get("framedit:artifacts").decode() == (tmp_path / "store" / ".framedit" / "database").read_text()


def test_a_mount_that_goes_away_and_comes_back_loses_nothing(
    redis: Redis, redis_url: str, store: EveryRole, disk: Path, tmp_path: Path, source: Path
) -> None:
    settings = Settings(redis_url=redis_url, data_dir=tmp_path, artifacts=disk)
    with serving(settings) as url, httpx.Client(base_url=url, timeout=10) as http:
        artifacts = bound(redis, disk)
        made, late = completed(store, artifacts, source), make_record()
        content = f"/v1/videos/{made.id}/content"
        assert (http.get("/readyz").status_code, http.get(content).content) == (200, b"mp4")
        with unmounted(disk, tmp_path / "aside"):
            with pytest.raises(ArtifactStoreError, match="is away"):
                artifacts.write(late.id, "video", source)
            gone = http.get(content)
            assert (gone.status_code, gone.json()["error"]["code"]) == (503, "artifact_store")
            assert int(gone.headers["Retry-After"]) > 0
            wait_for(lambda: http.get("/readyz").status_code == 503, "readiness to fail", 10)
            assert list(disk.iterdir()) == []
        assert http.get(content).content == b"mp4"
        wait_for(lambda: http.get("/readyz").status_code == 200, "readiness", 10)
        artifacts.write(late.id, "video", source)
    with pytest.raises(ArtifactFileMissingError):
        artifacts.open(make_record().id)


def test_the_folder_of_an_older_version_is_closed_to_other_users(redis: Redis, tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "artifacts"
    store = bound(redis, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    store.write(VIDEO_ID, "video", source)
    assert stat.S_IMODE((folder / VIDEO_ID).stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert bound(redis, folder).exists(VIDEO_ID)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give a folder away")
def test_the_folder_of_another_user_is_used_with_a_warning(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a volume of Kubernetes: it belongs to root and to a group of the pod."""
    folder = tmp_path / "artifacts"
    bound(redis, folder)
    folder.chmod(0o775)
    os.chown(folder, 12345, 0)
    for _ in range(2):
        bound(redis, folder).check_writable()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o775
    [warning] = [record.getMessage() for record in caplog.records if "other users" in record.getMessage()]
    assert "it belongs to the user 12345" in warning
