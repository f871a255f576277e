"""An artifact store in an S3 bucket or a compatible store (MinIO, Ceph, R2), through fsspec.

Credentials, region and endpoint are botocore's own settings: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL, AWS_SHARED_CREDENTIALS_FILE, a machine's role and others.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from jobs.videos.record import Artifact

# Files of more than twice this size are uploaded in parallel parts; an interrupted upload leaves no object.
_PART_BYTES = 8 << 20
_BLOCK_BYTES = 1 << 20
# Tries within one call, of s3fs and of botocore below it; callers retry longer outages.
_TRIES = 2
_CLIENT = {"connect_timeout": 3, "read_timeout": 20, "retries": {"total_max_attempts": 2, "mode": "standard"}}


class Bucket:
    """An `ArtifactBackend` at `s3://bucket/prefix`. A file appears under its name once it is complete."""

    def __init__(self, url: Path | str) -> None:
        scheme, _, self._root = str(url).rstrip("/").partition("://")
        if scheme != "s3" or not self._root:
            raise ValueError(f"the artifact store is {str(url)!r}; it is a folder or s3://bucket/prefix")
        try:
            import s3fs  # noqa: F401
        except ImportError:
            raise ValueError("an artifact store in S3 needs s3fs: pip install 'framedit-server[s3]'") from None

    def make_private(self) -> None:
        pass  # the access to a bucket is set at its provider

    def create(self) -> None:
        pass  # a prefix needs no creation, and buckets are the operator's

    def write(self, name: str, source_file: Path) -> Artifact:
        with source_file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256")
            num_bytes = source.tell()
        with _os_errors():
            self._fs.put_file(str(source_file), self._key(name), chunksize=_PART_BYTES)
        return Artifact(num_bytes=num_bytes, sha256=digest.hexdigest())

    def open(self, name: str) -> BinaryIO:
        with _os_errors():
            return cast(BinaryIO, io.BufferedReader(_Reader(self._fs.open(self._key(name), block_size=_BLOCK_BYTES))))

    def exists(self, name: str) -> bool:
        try:
            with _os_errors():
                self._fs.info(self._key(name))
        except FileNotFoundError:
            return False
        return True

    def path(self, name: str) -> None:
        return None

    def link(self, name: str, seconds: int, media_type: str, disposition: str) -> str:
        with _os_errors():
            return str(
                self._fs.sign(
                    self._key(name),
                    expiration=seconds,
                    ResponseContentType=media_type,
                    ResponseContentDisposition=disposition,
                )
            )

    def remove(self, folder: str) -> None:
        with _os_errors():
            keys = self._fs.find(self._key(folder))
            if keys:
                self._fs.rm(keys)

    def folders(self) -> Iterator[str]:
        with _os_errors():
            try:
                entries = self._fs.ls(self._root, detail=True, refresh=True)
            except FileNotFoundError:  # a prefix exists while there is an object below it
                self._fs.info(self._root.partition("/")[0])
                return
        yield from (entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "directory")

    def remove_parts(self, older_than_seconds: float) -> int:
        return 0  # an object exists once it is complete

    def check_writable(self) -> None:
        with _os_errors():
            self._fs.pipe_file(self._key(".probe"), b"probe")

    @cached_property
    def _fs(self) -> Any:
        import s3fs

        bucket = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=_CLIENT)
        bucket.retries = _TRIES
        return bucket

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}"


class _Reader(io.RawIOBase):
    """An fsspec file whose errors are `OSError`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with _os_errors():
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _os_errors() -> Iterator[None]:
    """Turn the S3 client's connection and permission errors into an `OSError` with a reason."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.exceptions import ClientError as RefusedError

    try:
        yield
    except FileNotFoundError:
        raise
    except (BotoCoreError, ClientError, RefusedError, OSError) as error:
        # Their texts name hosts and keys, which clients must not see; the log has them as the cause.
        reason = "access is denied" if isinstance(error, PermissionError) else "the object store does not answer"
        raise OSError(getattr(error, "errno", None) or 5, reason) from error
