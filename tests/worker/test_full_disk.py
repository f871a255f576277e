"""Real full disks, under the encoder and under the artifact store: a video waits for space."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import ArtifactStoreError
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import VideoRecord
from tests.full_disk import ballast, small_disk
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS
from tests.waiting import wait_for
from tests.worker.conftest import finishing
from worker.loading.model_cache import ModelCache
from worker.messages import Artifacts, JobFailed, JobFinished, StopRetries
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import NoRoomError
from worker.output.formats.mp4 import write_mp4
from worker.output.thumbnails import write_spritesheet, write_thumbnail

PAGE = 4096
FRAMES = np.random.default_rng(0).integers(0, 256, (16, 96, 96, 3), dtype=np.uint8)  # noise: a file of many pages
VIDEO_ID = f"video_{0:032x}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder) as is_mounted:
        if not is_mounted:
            pytest.skip("needs the right to mount a file system")
        yield folder


def upload(record: VideoRecord, folder: Path, should_stop: Callable[[], bool]) -> Artifacts:
    assert decode_mp4(folder / "video.mp4").frames.shape == (NUM_FRAMES, PIXELS, PIXELS, 3)
    return {}


def leave_room(path: Path, num_bytes: int) -> None:
    """Free some of the space that the ballast takes."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - num_bytes)


def fill_with_files(disk: Path) -> list[Path]:
    """Create as many empty files as possible."""
    files: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            files.append(disk / str(len(files)))
            files[-1].touch()
    return files[:-1]


def latents() -> torch.Tensor:
    return torch.randn(1, NUM_FRAMES, 2, PIXELS // 2, PIXELS // 2)


def test_on_a_full_disk_a_video_is_complete_or_missing(disk: Path, tmp_path: Path) -> None:
    """The disk can be full in the frames, in the index, or while ffmpeg moves the index to the front."""
    write_mp4(FRAMES, tmp_path / "whole.mp4", Encoding(8))
    whole = (tmp_path / "whole.mp4").read_bytes()
    pages = len(whole) // PAGE + 1
    assert pages > 20
    with ballast(disk) as path:
        for room in (0, 1, pages // 4, pages // 2, 3 * pages // 4, pages - 2, pages - 1):
            leave_room(path, room * PAGE)
            with pytest.raises(NoRoomError, match="No space left on device"):
                write_mp4(FRAMES, disk / "video.mp4", Encoding(8))
            assert not (disk / "video.mp4").exists()
            with path.open("ab") as file:
                file.write(b"x" * room * PAGE)
        leave_room(path, pages * PAGE)
        write_mp4(FRAMES, disk / "video.mp4", Encoding(8))
    assert (disk / "video.mp4").read_bytes() == whole


@pytest.mark.parametrize("write", [write_thumbnail, write_spritesheet])
def test_images_raise_an_error_that_is_retried(disk: Path, write: Callable[..., None]) -> None:
    with ballast(disk), pytest.raises(OSError, match=r"space|encoder"):
        write(FRAMES, disk / "picture")


def test_a_video_waits_for_space(
    disk: Path, models: ModelCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with finishing(upload, full_disk_seconds=3600, interval_seconds=0.01) as finisher:
        with ballast(disk):
            finisher.submit("a", models["tiny"], latents())
            wait_for(lambda: "video files could not be written, retrying" in caplog.text, "the full disk to be noticed")
            assert finisher.results.receive() == []
        [result] = finisher.wait_for_results(1)
    assert isinstance(result, JobFinished), result


def test_a_video_waits_for_its_temporary_folder(
    tmp_path: Path, models: ModelCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk has no space for an empty folder, because of the number of files."""
    with small_disk(tmp_path, "size=1m,nr_inodes=8") as is_mounted:
        if not is_mounted:
            pytest.skip("needs the right to mount a file system")
        files = fill_with_files(tmp_path)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with finishing(upload, full_disk_seconds=3600, interval_seconds=0.01) as finisher:
            finisher.submit("a", models["tiny"], latents())
            wait_for(lambda: "temporary folder could not be created" in caplog.text, "the full disk to be noticed")
            for file in files:
                file.unlink()
            [result] = finisher.wait_for_results(1)
        assert isinstance(result, JobFinished), result


@pytest.mark.parametrize("full_disk_seconds", [0.05, 3600])
def test_retries_end_at_their_limit_or_with_the_worker(
    disk: Path, models: ModelCache, monkeypatch: pytest.MonkeyPatch, full_disk_seconds: float
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with ballast(disk), finishing(upload, full_disk_seconds=full_disk_seconds, interval_seconds=0.01) as finisher:
        finisher.submit("a", models["tiny"], latents())
        if full_disk_seconds == 3600:
            finisher.inbox.post(StopRetries())
        [result] = finisher.wait_for_results(1)
        assert isinstance(result, JobFailed)
        assert isinstance(result.error, NoRoomError)


def test_the_artifact_store_waits_for_space_and_leaves_no_partial_file(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "video.mp4"
    source.write_bytes(np.random.default_rng(0).bytes(100_000))
    with ballast(disk) as path:
        leave_room(path, 8 * PAGE)
        with pytest.raises(ArtifactStoreError, match="No space left on device"):
            ArtifactStore(disk).write(VIDEO_ID, "video", source)
        assert list((disk / VIDEO_ID).iterdir()) == list((disk / ".framedit" / "parts").iterdir()) == []

        threading.Thread(
            target=lambda: wait_for(lambda: "trying again" in caplog.text, "a try") and path.unlink(), daemon=True
        ).start()
        stored = ArtifactStore(disk, retry_seconds=3600).write(VIDEO_ID, "video", source)
    assert stored.num_bytes == 100_000
    assert ArtifactStore(disk).path(VIDEO_ID).read_bytes() == source.read_bytes()
    shutil.rmtree(disk / VIDEO_ID)
