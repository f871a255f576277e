"""Temporary folders, and those that killed workers have left."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from worker.output.scratch_folder import ScratchFolder, remove_abandoned_folders

SCRIPT = """
import sys, time
from worker.output.scratch_folder import ScratchFolder
scratch = ScratchFolder()
folder = scratch.new()
print(folder.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def scratch_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nothing_is_left_after_the_end(scratch_disk: Path) -> None:
    scratch = ScratchFolder()
    with scratch.new() as first, scratch.new() as second:
        assert Path(first).is_dir()
        assert Path(first).parent == Path(second).parent
    scratch.close()
    assert list(scratch_disk.iterdir()) == []


def test_a_removed_folder_is_created_again() -> None:
    scratch = ScratchFolder()
    with scratch.new() as folder:
        around = Path(folder).parent
    around.rmdir()
    with scratch.new() as folder:
        assert Path(folder).is_dir()
    scratch.close()


def test_only_folders_of_killed_workers_are_removed(scratch_disk: Path) -> None:
    (scratch_disk / "framedit-other").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={"TMPDIR": str(scratch_disk), "PYTHONPATH": ":".join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    own = ScratchFolder()
    with own.new() as mine:
        remove_abandoned_folders()
        assert folder.is_dir()
        process.kill()
        process.communicate()
        remove_abandoned_folders()
        assert not folder.parent.exists()
        assert Path(mine).is_dir()
    own.close()
    assert [entry.name for entry in scratch_disk.iterdir()] == ["framedit-other"]
