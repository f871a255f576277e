"""Finished files, in a folder that the server and the workers share: `<root>/<video id>/<kind>.<ending>`."""

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import BinaryIO

from jobs.errors import ArtifactStoreError
from jobs.records import Artifact, ArtifactKind, is_video_id

_ENDINGS: dict[ArtifactKind, str] = {"video": "mp4", "thumbnail": "webp", "spritesheet": "jpg"}
KINDS = tuple(_ENDINGS)
_COPY_BYTES = 1 << 20


class ArtifactStore:
    """Paths are made from video ids and kinds alone, never from anything a client wrote."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, video_id: str, kind: ArtifactKind = "video") -> Path:
        """Where the file is, or will be."""
        return self._folder(video_id) / file_name(kind)

    def write(self, video_id: str, kind: ArtifactKind, source_file: Path) -> Artifact:
        """Store a copy of a file, whole or not at all, and on the disk when this returns.

        :raises ArtifactStoreError: when it cannot be written.
        """
        target = self.path(video_id, kind)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                artifact = _copy_durably(source_file, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
            _sync_folder(self._root)
        except OSError as error:
            raise ArtifactStoreError(f"cannot store the {kind} of {video_id}: {error.strerror}") from error
        return artifact

    def open(self, video_id: str, kind: ArtifactKind = "video") -> BinaryIO:
        """:raises ArtifactStoreError: when there is no such file."""
        try:
            return self.path(video_id, kind).open("rb")
        except OSError as error:
            raise ArtifactStoreError(f"cannot open the {kind} of {video_id}: {error.strerror}") from error

    def exists(self, video_id: str, kind: ArtifactKind = "video") -> bool:
        return self.path(video_id, kind).is_file()

    def delete(self, video_id: str) -> None:
        """Remove all files of a video; there may be none.

        :raises ArtifactStoreError: when they cannot be removed.
        """
        try:
            shutil.rmtree(self._folder(video_id))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ArtifactStoreError(f"cannot remove the files of {video_id}: {error.strerror}") from error

    def check_writable(self) -> None:
        """:raises ArtifactStoreError: when a file could not be stored now."""
        probe = self._root / f".probe.{secrets.token_hex(4)}"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
            probe.unlink()
        except OSError as error:
            raise ArtifactStoreError(f"the artifact store cannot be written: {error.strerror}") from error

    def _folder(self, video_id: str) -> Path:
        if not is_video_id(video_id):
            raise ArtifactStoreError(f"{video_id!r} is not the id of a video")
        return self._root / video_id


def file_name(kind: ArtifactKind) -> str:
    return f"{kind}.{_ENDINGS[kind]}"


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
