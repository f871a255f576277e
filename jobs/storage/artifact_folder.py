"""An artifact store in a folder that server and workers share.

It does not use fsspec, whose local files are neither synced to disk nor renamed into place: stored files must survive a
power cut.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from jobs.storage.private_folder import make_private
from jobs.videos.record import Artifact

# The files that a process has not completed, in one folder: those of killed processes are found without a search.
PARTS = ".framedit/parts"
_COPY_BYTES = 1 << 20
_REMOVAL_TRIES = 5


class Folder:
    """An `ArtifactBackend` below `root`.

    Only `create` makes the root: a root that is missing later is a disk that is not mounted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make_private(self) -> None:
        make_private(self._root)

    def write(self, name: str, source_file: Path) -> Artifact:
        target = self.path(name)
        temporary = self._new_part()
        target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            artifact = _copy_durably(source_file, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        _sync_folder(self._root)
        return artifact

    def open(self, name: str) -> BinaryIO:
        return self.path(name).open("rb")

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def path(self, name: str) -> Path:
        return self._root / name

    def link(self, name: str, seconds: int, media_type: str, disposition: str) -> None:
        return None

    def remove(self, folder: str) -> None:
        for _ in range(_REMOVAL_TRIES):
            try:
                return shutil.rmtree(self._root / folder)
            except FileNotFoundError:
                return None
            except OSError as error:
                # A worker stored another file meanwhile; it will learn that the video was deleted.
                if error.errno != errno.ENOTEMPTY:
                    raise
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    def folders(self) -> Iterator[str]:
        if self._root.is_dir():
            yield from (entry.name for entry in os.scandir(self._root) if entry.is_dir())

    def check_writable(self) -> None:
        probe = self._root / f".probe.{secrets.token_hex(4)}"
        try:
            probe.write_bytes(b"probe")
        finally:
            probe.unlink(missing_ok=True)

    def remove_parts(self, older_than_seconds: float) -> int:
        num_removed = 0
        for part in (*self._root.glob(".probe.*"), *(self._root / PARTS).glob("*")):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > older_than_seconds:
                    part.unlink()
                    num_removed += 1
        return num_removed

    def _new_part(self) -> Path:
        """Return a new path for a file that is not complete yet, on the file system of the store."""
        folder = self._root / PARTS
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / secrets.token_hex(8)


def _copy_durably(source_file: Path, target: Path) -> Artifact:
    digest = hashlib.sha256()
    num_bytes = 0
    with source_file.open("rb") as source, target.open("wb") as sink:
        while chunk := source.read(_COPY_BYTES):
            digest.update(chunk)
            sink.write(chunk)
            num_bytes += len(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    return Artifact(num_bytes=num_bytes, sha256=digest.hexdigest())


def _sync_folder(folder: Path) -> None:
    """A rename is durable only once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
