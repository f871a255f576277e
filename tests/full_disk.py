"""A disk of its own that can be really full: a small file system in memory, mounted for as long as it is needed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES_AT_ONCE = (1 << 16, 1 << 12, 1)


@contextmanager
def small_disk(folder: Path, options: str = "size=16m") -> Iterator[bool]:
    """A disk mounted over `folder`, which exists, until the block ends; False where this process may not mount."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    may_mount = sys.platform == "linux" and shutil.which("mount") is not None
    is_mounted = may_mount and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            # Out of the tree at once, whoever may still have a file of it open.
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def ballast(disk: Path) -> Iterator[Path]:
    """A file that takes all the room there is on `disk`, until the block ends; `top_up` takes what was let go since."""
    path = disk / ".ballast"
    try:
        top_up(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def top_up(path: Path) -> None:
    """Write to the end of the ballast until the disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in _BYTES_AT_ONCE:
            _write_all_there_is_room_for(descriptor, b"x" * size)
    finally:
        os.close(descriptor)


def _write_all_there_is_room_for(descriptor: int, block: bytes) -> None:
    try:
        while os.write(descriptor, block):
            pass
    except OSError:
        return
