"""Files in a folder that the server and the workers share.

Not through fsspec, whose local files are neither synced to the disk nor renamed into place: what is stored here must
outlive a power cut.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jobs.records import Artifact

_COPY_BYTES = 1 << 20
_REMOVAL_TRIES = 5


class Folder:
    """A `Place` below `root`, which is made when it is missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, source_file: Path) -> Artifact:
        target = self.path(name)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        target.parent.mkdir(parents=True, exist_ok=True)
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
                # A worker stored another file meanwhile; it will find out that the video is gone.
                if error.errno != errno.ENOTEMPTY:
                    raise
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    def folders(self) -> Iterator[str]:
        if self._root.is_dir():
            yield from (entry.name for entry in os.scandir(self._root) if entry.is_dir())

    def check_writable(self) -> None:
        probe = self._root / f".probe.{secrets.token_hex(4)}"
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"probe")
        finally:
            probe.unlink(missing_ok=True)


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
