"""The frames that a request starts from, in the artifact store."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import ArtifactFileMissingError, VideoGoneError
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import VideoRecord
from server.references.decoder import DecodedFrames


@contextmanager
def stored_frames(
    artifacts: ArtifactStore, records: Sequence[VideoRecord], frames: DecodedFrames | None
) -> Iterator[None]:
    """Store the frames for each of the records; remove them again when the records cannot be created.

    :raises ArtifactStoreError: when they cannot be stored.
    """
    if frames is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="framedit-") as folder:
        path = Path(folder) / "reference"
        path.write_bytes(frames.rgb)
        try:
            for record in records:
                artifacts.write(record.id, "reference", path)
            yield
        except BaseException:
            for record in records:
                artifacts.delete(record.id)
            raise


def read_frames(artifacts: ArtifactStore, record: VideoRecord) -> DecodedFrames | None:
    """The frames that a video started from, None when it started from none.

    :raises VideoGoneError: when they are not stored any more.
    :raises ArtifactStoreError: when they cannot be read.
    """
    request = record.request
    if request.reference is None:
        return None
    try:
        rgb = artifacts.read(record.id, "reference")
    except ArtifactFileMissingError:
        raise VideoGoneError(
            f"the image or video that {record.id} starts from is not stored any more; send it with a new request"
        ) from None
    frames = DecodedFrames(rgb, request.reference.num_frames, request.width, request.height)
    if len(rgb) != frames.num_bytes:
        raise VideoGoneError(f"the reference of {record.id} is damaged; send it again with a new request")
    return frames
