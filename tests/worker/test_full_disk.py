"""Disks that are really full, under the encoder and under our own writing: what is made waits for room."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import worker.finishing
from jobs.artifacts import ArtifactStore
from jobs.errors import ArtifactStoreError
from tests.full_disk import ballast, small_disk
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS
from tests.waiting import wait_for
from worker.finishing import Finished, Finisher, FinishFailed
from worker.pictures import write_spritesheet, write_thumbnail
from worker.resident import ResidentModels
from worker.video import NoRoomError, write_mp4

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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.finishing, "_PAUSE_SECONDS", 0.01)


def leave_room(path: Path, num_bytes: int) -> None:
    """Of what the ballast has taken."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - num_bytes)


def fill_with_files(disk: Path) -> list[Path]:
    """As many empty ones as there is room for."""
    files: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            files.append(disk / str(len(files)))
            files[-1].touch()
    return files[:-1]


def latents() -> torch.Tensor:
    return torch.randn(1, NUM_FRAMES, 2, PIXELS // 2, PIXELS // 2)


def test_wherever_the_room_ends_a_video_is_whole_or_not_there(disk: Path, tmp_path: Path) -> None:
    """ffmpeg can run out of room in the frames, in the index, or while it moves the index to the front."""
    write_mp4(FRAMES, tmp_path / "whole.mp4", 8)
    whole = (tmp_path / "whole.mp4").read_bytes()
    pages = len(whole) // PAGE + 1
    assert pages > 20
    with ballast(disk) as path:
        for room in (0, 1, pages // 4, pages // 2, 3 * pages // 4, pages - 2, pages - 1):
            leave_room(path, room * PAGE)
            with pytest.raises(NoRoomError, match="No space left on device"):
                write_mp4(FRAMES, disk / "video.mp4", 8)
            assert not (disk / "video.mp4").exists()
            with path.open("ab") as file:
                file.write(b"x" * room * PAGE)
        leave_room(path, pages * PAGE)
        write_mp4(FRAMES, disk / "video.mp4", 8)
    assert (disk / "video.mp4").read_bytes() == whole


@pytest.mark.parametrize("write", [write_thumbnail, write_spritesheet])
def test_pictures_fail_with_what_is_waited_for(disk: Path, write: Callable[..., None]) -> None:
    with ballast(disk), pytest.raises(OSError, match=r"space|encoder"):
        write(FRAMES, disk / "picture")


def test_a_video_waits_for_room_and_is_made(
    disk: Path, models: ResidentModels, monkeypatch: pytest.MonkeyPatch, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    finisher = Finisher(lambda _, folder: decode_mp4(folder / "video.mp4").frames.shape, room_patience_seconds=3600)
    with ballast(disk):
        finisher.submit("a", models["tiny"], latents(), 8)
        wait_for(lambda: "a video could not be written, trying again" in caplog.text, "the full disk to be noticed")
        assert finisher.finished() == []
    [result] = wait_for(finisher.finished, "the video")
    finisher.close()
    assert isinstance(result, Finished), result
    assert result.delivery == (NUM_FRAMES, PIXELS, PIXELS, 3)


def test_a_video_waits_for_a_folder_to_be_made_in(
    tmp_path: Path,
    models: ResidentModels,
    monkeypatch: pytest.MonkeyPatch,
    quick: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where not even an empty folder has room: here by the number of files."""
    with small_disk(tmp_path, "size=1m,nr_inodes=8") as is_mounted:
        if not is_mounted:
            pytest.skip("needs the right to mount a file system")
        files = fill_with_files(tmp_path)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        finisher = Finisher(lambda _, folder: None, room_patience_seconds=3600)
        finisher.submit("a", models["tiny"], latents(), 8)
        wait_for(lambda: "no folder can be made for a video" in caplog.text, "the full disk to be noticed")
        for file in files:
            file.unlink()
        [result] = wait_for(finisher.finished, "the video")
        finisher.close()
        assert isinstance(result, Finished), result


def test_it_waits_no_longer_than_its_patience_or_than_it_may(
    disk: Path, models: ResidentModels, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    ending = threading.Event()
    finishers = [
        Finisher(lambda _, folder: None, room_patience_seconds=0.05),
        Finisher(lambda _, folder: None, room_patience_seconds=3600, give_up=ending.is_set),
    ]
    with ballast(disk):
        for finisher in finishers:
            finisher.submit("a", models["tiny"], latents(), 8)
        [first] = wait_for(finishers[0].finished, "the end of its patience")
        ending.set()
        [second] = wait_for(finishers[1].finished, "it to give up")
        for result in (first, second):
            assert isinstance(result, FinishFailed)
            assert isinstance(result.error, NoRoomError)
    for finisher in finishers:
        finisher.close()


def test_the_artifact_store_waits_for_room_and_leaves_no_part_of_a_file(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "video.mp4"
    source.write_bytes(np.random.default_rng(0).bytes(100_000))
    with ballast(disk) as path:
        leave_room(path, 8 * PAGE)
        with pytest.raises(ArtifactStoreError, match="No space left on device"):
            ArtifactStore(disk).write(VIDEO_ID, "video", source)
        assert list((disk / VIDEO_ID).iterdir()) == []

        threading.Thread(
            target=lambda: wait_for(lambda: "trying again" in caplog.text, "a try") and path.unlink(), daemon=True
        ).start()
        stored = ArtifactStore(disk, retry_seconds=3600).write(VIDEO_ID, "video", source)
    assert stored.num_bytes == 100_000
    assert ArtifactStore(disk).path(VIDEO_ID).read_bytes() == source.read_bytes()
    shutil.rmtree(disk / VIDEO_ID)
