"""Finished files: `<location>/<video id>/<kind>.<ending>`, in a folder that all processes share or in an S3 bucket."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from jobs.artifact_bucket import Bucket
from jobs.artifact_folder import Folder
from jobs.errors import ArtifactFileMissingError, ArtifactStoreError
from jobs.records import Artifact, ArtifactKind, is_video_id

logger = logging.getLogger(__name__)

_ENDINGS: dict[ArtifactKind, str] = {"video": "mp4", "thumbnail": "webp", "spritesheet": "jpg"}
KINDS = tuple(_ENDINGS)
# No video has such an id. It tells which database the files belong to.
_MARK = ".framedit/database"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0


class Place(Protocol):
    """Where files are kept, by names of the form `folder/file`. All methods raise `OSError`."""

    def write(self, name: str, source_file: Path) -> Artifact: ...
    def open(self, name: str) -> BinaryIO: ...
    def exists(self, name: str) -> bool: ...
    def path(self, name: str) -> Path | None: ...
    def link(self, name: str, seconds: int, media_type: str, disposition: str) -> str | None: ...
    def remove(self, folder: str) -> None: ...
    def folders(self) -> Iterator[str]: ...
    def check_writable(self) -> None: ...


class ArtifactStore:
    """Names are made from video ids and kinds alone, never from anything a client wrote.

    A write that fails because the store is away, or full, is tried again for `retry_seconds`. The file to be stored
    stays where it is meanwhile: an outage delays a video and loses nothing.
    """

    def __init__(
        self, location: Path | str, retry_seconds: float = 0.0, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """`location` is a folder, or `s3://bucket/prefix`; nothing is connected to before it is needed.

        `give_up` is asked before each further try: a process that has to end says so with it.

        :raises ValueError: for another kind of URL, or when what S3 needs is not installed.
        """
        self._place: Place = Bucket(location) if "://" in str(location) else Folder(Path(location))
        self._retry_seconds = retry_seconds
        self._give_up = give_up

    def write(self, video_id: str, kind: ArtifactKind, source_file: Path) -> Artifact:
        """Store a copy of a file, whole or not at all, and durable when this returns.

        :raises ArtifactStoreError: when it cannot be stored.
        """
        name = _name(video_id, kind)
        give_up_at, pause = time.monotonic() + self._retry_seconds, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return self._place.write(name, source_file)
            except OSError as error:
                message = f"cannot store the {kind} of {video_id}: {_reason(error)}"
                if time.monotonic() + pause > give_up_at or self._give_up() or not source_file.is_file():
                    raise ArtifactStoreError(message) from error
                logger.warning("%s; trying again", message)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def open(self, video_id: str, kind: ArtifactKind = "video") -> BinaryIO:
        """The file, to be read from any position.

        :raises ArtifactFileMissingError: when there is no such file.
        :raises ArtifactStoreError: when it cannot be read.
        """
        with _named(f"cannot open the {kind} of {video_id}"):
            return self._place.open(_name(video_id, kind))

    def exists(self, video_id: str, kind: ArtifactKind = "video") -> bool:
        """:raises ArtifactStoreError: when the store does not answer."""
        with _named(f"cannot look for the {kind} of {video_id}"):
            return self._place.exists(_name(video_id, kind))

    def path(self, video_id: str, kind: ArtifactKind = "video") -> Path:
        """Where the file is, or will be, on this machine.

        :raises ArtifactStoreError: when files are not kept on this machine.
        """
        path = self._place.path(_name(video_id, kind))
        if path is None:
            raise ArtifactStoreError(f"the {kind} of {video_id} is in a bucket, not in a folder")
        return path

    @property
    def is_folder(self) -> bool:
        """Whether `path` tells of real files; otherwise files are read with `open` and linked to with `link`."""
        return isinstance(self._place, Folder)

    def link(self, video_id: str, kind: ArtifactKind, seconds: int, media_type: str, disposition: str) -> str:
        """A URL under which anybody can read a file in a bucket for a while, without this server.

        :raises ArtifactStoreError: when it cannot be made, or files are in a folder.
        """
        with _named(f"cannot link to the {kind} of {video_id}"):
            url = self._place.link(_name(video_id, kind), seconds, media_type, disposition)
        if url is None:
            raise ArtifactStoreError(f"the {kind} of {video_id} is in a folder, which nothing links to")
        return url

    def delete(self, video_id: str) -> None:
        """Remove all files of a video; there may be none.

        :raises ArtifactStoreError: when they cannot be removed.
        """
        folder = _folder(video_id)
        with _named(f"cannot remove the files of {video_id}"):
            self._place.remove(folder)

    def video_ids(self) -> Iterator[str]:
        """The ids of all videos that have files here, whether there is a record of them or not, in no order.

        :raises ArtifactStoreError: when the store does not answer.
        """
        with _named("cannot list the artifact store"):
            yield from filter(is_video_id, self._place.folders())

    def mark(self) -> str | None:
        """What `set_mark` has left here, None when nothing.

        :raises ArtifactStoreError: when the store does not answer.
        """
        try:
            with _named("cannot read the artifact store's mark"), self._place.open(_MARK) as file:
                return file.read(100).decode()
        except ArtifactFileMissingError:
            return None

    def set_mark(self, mark: str) -> None:
        """:raises ArtifactStoreError: when it cannot be stored."""
        with tempfile.TemporaryDirectory(prefix="framedit-") as folder:
            source = Path(folder) / "mark"
            source.write_text(mark, encoding="utf-8")
            with _named("cannot mark the artifact store"):
                self._place.write(_MARK, source)

    def check_writable(self) -> None:
        """:raises ArtifactStoreError: when a file could not be stored now."""
        with _named("the artifact store cannot be written"):
            self._place.check_writable()


def file_name(kind: ArtifactKind) -> str:
    return f"{kind}.{_ENDINGS[kind]}"


def _folder(video_id: str) -> str:
    if not is_video_id(video_id):
        raise ArtifactStoreError(f"{video_id!r} is not the id of a video")
    return video_id


def _name(video_id: str, kind: ArtifactKind) -> str:
    return f"{_folder(video_id)}/{file_name(kind)}"


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactFileMissingError(f"{what}: there is no such file") from error
    except OSError as error:
        raise ArtifactStoreError(f"{what}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """In words that hold no path."""
    return error.strerror or type(error).__name__
