"""The artifact store: files `<location>/<video id>/<file name>`, in a shared folder or a bucket."""

import errno
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar

from jobs.errors import ArtifactFileMissingError, ArtifactStoreError
from jobs.storage.artifact_bucket import Bucket
from jobs.storage.artifact_folder import Folder
from jobs.videos.record import Artifact, ArtifactKind, is_video_id

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

# The frames that a request starts from (`Reference`) are stored beside the files of its video.
FileKind = ArtifactKind | Literal["reference"]
_FILE_NAMES: dict[FileKind, str] = {
    "video": "video.mp4",
    "webm": "video.webm",
    "gif": "video.gif",
    "webp": "video.webp",
    "frames": "frames.zip",
    "image": "image.png",
    "thumbnail": "thumbnail.webp",
    "spritesheet": "spritesheet.jpg",
    "reference": "reference.rgb",
}
# Small pictures that every result has beside its own file.
PICTURES: tuple[ArtifactKind, ...] = ("thumbnail", "spritesheet")
# The file that names the database of this store; no video has such an id.
MARK = ".framedit/database"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0


class ArtifactBackend(Protocol):
    """A place for files, by names of the form `folder/file`. All methods raise `OSError`."""

    def create(self) -> None: ...
    def make_private(self) -> None: ...
    def write(self, name: str, source_file: Path) -> Artifact: ...
    def open(self, name: str) -> BinaryIO: ...
    def exists(self, name: str) -> bool: ...
    def path(self, name: str) -> Path | None: ...
    def link(self, name: str, seconds: int, media_type: str, disposition: str) -> str | None: ...
    def remove(self, folder: str) -> None: ...
    def folders(self) -> Iterator[str]: ...
    def check_writable(self) -> None: ...
    def remove_parts(self, older_than_seconds: float) -> int: ...


class ArtifactStore:
    """Files of videos. Their names consist of video ids and kinds, never of anything a client wrote.

    A write or a read that fails, because the store is away or full, is retried for `retry_seconds`. The source file
    stays meanwhile: an outage delays a video and loses nothing.
    """

    def __init__(
        self,
        location: Path | str,
        retry_seconds: float = 0.0,
        expected_mark: Callable[[], str | None] | None = None,
    ) -> None:
        """Open a store; it connects at its first use.

        Args:
            location: A folder, or `s3://bucket/prefix`.
            expected_mark: Returns the mark of the database (`jobs/storage/store_mark.py`). A store without it is away.

        :raises ValueError: for another kind of URL, or when what S3 needs is not installed.
        """
        self._backend: ArtifactBackend = Bucket(location) if "://" in str(location) else Folder(Path(location))
        self._retry_seconds = retry_seconds
        self._expected_mark = expected_mark

    def write(
        self, video_id: str, kind: FileKind, source_file: Path, give_up: Callable[[], bool] = lambda: False
    ) -> Artifact:
        """Store a copy of a file, whole or not at all, and durable when this returns.

        `give_up` is called before each retry, and returns whether to raise instead.

        :raises ArtifactStoreError: when it cannot be stored.
        """

        def store() -> Artifact:
            self._check_mark()
            return self._backend.write(_name(video_id, kind), source_file)

        what = f"cannot store the {kind} of {video_id}"
        return self._retry(store, what, lambda: give_up() or not source_file.is_file())

    def read(self, video_id: str, kind: FileKind, give_up: Callable[[], bool] = lambda: False) -> bytes:
        """Return the content of a file. `give_up` is that of `write`.

        :raises ArtifactFileMissingError: when there is no such file, which is not retried.
        :raises ArtifactStoreError: when it cannot be read.
        """

        def read() -> bytes:
            with self._open(video_id, kind) as file:
                return file.read()

        return self._retry(read, f"cannot read the {kind} of {video_id}", give_up)

    def _retry(self, action: Callable[[], Result], what: str, give_up: Callable[[], bool]) -> Result:
        give_up_at, pause = time.monotonic() + self._retry_seconds, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except OSError as error:
                message = f"{what}: {_reason(error)}"
                if time.monotonic() + pause > give_up_at or give_up():
                    raise ArtifactStoreError(message) from error
                logger.warning("%s; trying again in %g s", message, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def open(self, video_id: str, kind: FileKind = "video") -> BinaryIO:
        """Open a file for reading, from any position.

        :raises ArtifactFileMissingError: when there is no such file.
        :raises ArtifactStoreError: when it cannot be read, or the store is away.
        """
        with _named(f"cannot open the {kind} of {video_id}"):
            return self._open(video_id, kind)

    def _open(self, video_id: str, kind: FileKind) -> BinaryIO:
        """Raise `OSError` when the store does not answer or is away, `ArtifactFileMissingError` without a file."""
        try:
            return self._backend.open(_name(video_id, kind))
        except FileNotFoundError as error:
            self._check_mark()
            raise ArtifactFileMissingError(f"cannot open the {kind} of {video_id}: there is no such file") from error

    def exists(self, video_id: str, kind: ArtifactKind = "video") -> bool:
        """:raises ArtifactStoreError: when the store does not answer, or is away."""
        with _named(f"cannot look for the {kind} of {video_id}"):
            if self._backend.exists(_name(video_id, kind)):
                return True
            self._check_mark()
            return False

    def path(self, video_id: str, kind: ArtifactKind = "video") -> Path:
        """Return the path of a file, existing or not, on this machine.

        :raises ArtifactStoreError: when files are not kept on this machine.
        """
        path = self._backend.path(_name(video_id, kind))
        if path is None:
            raise ArtifactStoreError(f"the {kind} of {video_id} is in a bucket, not in a folder")
        return path

    @property
    def is_folder(self) -> bool:
        """Whether the store is a folder, so that `path` works; otherwise `link` does."""
        return isinstance(self._backend, Folder)

    def link(self, video_id: str, kind: ArtifactKind, seconds: int, media_type: str, disposition: str) -> str:
        """Return a URL that gives read access to a file in a bucket for a while, without this server.

        :raises ArtifactStoreError: when it cannot be made, or files are in a folder.
        """
        with _named(f"cannot link to the {kind} of {video_id}"):
            url = self._backend.link(_name(video_id, kind), seconds, media_type, disposition)
        if url is None:
            raise ArtifactStoreError(f"the {kind} of {video_id} is in a folder, which has no links")
        return url

    def delete(self, video_id: str) -> None:
        """Remove the files of a video, if any.

        :raises ArtifactStoreError: when they cannot be removed.
        """
        folder = _folder(video_id)
        with _named(f"cannot remove the files of {video_id}"):
            self._backend.remove(folder)

    def video_ids(self) -> Iterator[str]:
        """Return the ids of all videos with files, whether they have a record or not, in no order.

        :raises ArtifactStoreError: when the store does not answer.
        """
        with _named("cannot list the artifact store"):
            yield from filter(is_video_id, self._backend.folders())

    def remove_parts(self, older_than_seconds: float) -> int:
        """Remove what killed processes have left of incomplete files; returns how many files that were.

        :raises ArtifactStoreError: when they cannot be removed.
        """
        with _named("cannot remove incomplete files"):
            return self._backend.remove_parts(older_than_seconds)

    def mark(self) -> str | None:
        """Return the mark of the store, None when it has none.

        :raises ArtifactStoreError: when the store does not answer.
        """
        with _named("cannot read the artifact store's mark"):
            return self._read_mark()

    def _read_mark(self) -> str | None:
        try:
            with self._backend.open(MARK) as file:
                return file.read(100).decode()
        except FileNotFoundError:
            return None

    def set_mark(self, mark: str) -> None:
        """Create the store, where it is a folder, and mark it.

        :raises ArtifactStoreError: when it cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="framedit-") as folder:
            source = Path(folder) / "mark"
            source.write_text(mark, encoding="utf-8")
            with _named("cannot mark the artifact store"):
                self._backend.create()
                self._backend.write(MARK, source)

    def make_private(self) -> None:
        """Close a folder to other users of the machine.

        :raises ArtifactStoreError: when it does not answer.
        """
        with _named("cannot read the artifact store"):
            self._backend.make_private()

    def check_writable(self) -> None:
        """:raises ArtifactStoreError: when a file could not be stored now."""
        with _named("the artifact store cannot be written"):
            self._backend.check_writable()
            self._check_mark()

    def _check_mark(self) -> None:
        """Raise `OSError` when the store is away."""
        if self._expected_mark is not None and self._read_mark() != (self._expected_mark() or ""):
            raise OSError(errno.ENODEV, "the store is away, it does not carry the mark of this database")


def file_name(kind: FileKind) -> str:
    return _FILE_NAMES[kind]


def _folder(video_id: str) -> str:
    if not is_video_id(video_id):
        raise ArtifactStoreError(f"{video_id!r} is not the id of a video")
    return video_id


def _name(video_id: str, kind: FileKind) -> str:
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
    """Return the reason of an error without a path."""
    return error.strerror or type(error).__name__
