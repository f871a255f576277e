"""Find the image or video that a request names, and decode it to the size of the model."""

import base64
import binascii
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from typing import IO, ClassVar

from jobs.cards import ModelCard
from jobs.errors import ArtifactStoreError, InvalidRequestError, VideoFailedError, VideoNotReadyError
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import VideoRecord
from server.auth import Caller, find_visible
from server.dependencies import Services
from server.http.ssrf_guard import PublicNetwork
from server.references.decoder import DecodedFrames, DecoderLimits, decode
from server.references.download import download
from server.wire import ReferenceInput


@dataclass(frozen=True)
class UploadedFile:
    """An image or a video that a client sent."""

    param: str
    content: bytes
    record: ClassVar[None] = None

    def decode(self, settings: Settings, card: ModelCard, fps: int, max_frames: int | None = None) -> DecodedFrames:
        """The first frames, cropped and resized to the model's size. A video is resampled to `fps`.

        :raises InvalidRequestError: for a file that is not an image or a video, is broken, or passes a limit.
        """
        with tempfile.TemporaryFile(prefix="framedit-") as file:
            file.write(self.content)
            file.flush()
            limits = _limits(settings)
            return decode(file, self.param, card.width, card.height, fps, max_frames=max_frames, limits=limits)


@dataclass(frozen=True)
class GeneratedVideo:
    """A completed video of the caller."""

    param: str
    record: VideoRecord
    artifacts: ArtifactStore

    def decode(self, settings: Settings, card: ModelCard, fps: int, max_frames: int | None = None) -> DecodedFrames:
        """The first frames, cropped and resized to the model's size. Interpolated frames are left out.

        Raises as that of `UploadedFile` does, and:

        :raises ArtifactStoreError: when the file of the video cannot be read.
        """
        request = self.record.request
        every = request.frame_rate_multiplier
        # A WebP joins equal frames, so its times count.
        file_fps = request.fps * every if request.result_kind == "webp" else None
        with tempfile.TemporaryFile(prefix="framedit-") as file:
            self._copy_to(file)
            file.flush()
            limits = _limits(settings)
            return decode(file, self.param, card.width, card.height, file_fps, every, max_frames, limits)

    def _copy_to(self, file: IO[bytes]) -> None:
        kind = self.record.request.result_kind
        with self.artifacts.open(self.record.id, kind) as stored:
            try:
                (_copy_frames if kind == "frames" else shutil.copyfileobj)(stored, file)
            except OSError as error:
                raise ArtifactStoreError(f"cannot read the {kind} of {self.record.id}") from error


SourceVideo = UploadedFile | GeneratedVideo


def find_source(
    param: str, given: ReferenceInput, file: bytes | None, services: Services, caller: Caller
) -> SourceVideo:
    """The source that a request names.

    :raises InvalidRequestError: when it names none or more than one, or a URL that is not allowed or cannot be read.
    :raises VideoNotFoundError: when the caller has no such video.
    :raises VideoUnavailableError: when the video is not completed.
    """
    named = [value for value in (file, given.id, given.image_url) if value is not None]
    if len(named) > 1:
        raise InvalidRequestError(f"{param} is given more than once; send a file, an id or an image_url", param)
    if file is not None:
        return UploadedFile(param, file)
    if given.id is not None:
        record = find_visible(services, caller, given.id)
        if record.status == "failed":
            raise VideoFailedError(f"{param} is {given.id}, which has failed; use a completed video")
        if record.status != "completed":
            raise VideoNotReadyError(f"{param} is {given.id}, which is {record.status}; wait until it is completed")
        return GeneratedVideo(param, record, services.artifacts)
    if given.image_url is not None:
        return UploadedFile(param, _read_url(param, given.image_url, services.settings))
    raise InvalidRequestError(f"{param} is empty; send a file, an id or an image_url", param)


def _limits(settings: Settings) -> DecoderLimits:
    return DecoderLimits(
        max_pixels=settings.max_reference_pixels,
        max_frames=settings.max_reference_frames,
        timeout_seconds=settings.reference_timeout_seconds,
    )


def _copy_frames(archive: IO[bytes], file: IO[bytes]) -> None:
    """Write the PNGs of a ZIP one after the other, as ffmpeg reads a stream of them."""
    with zipfile.ZipFile(archive) as frames:
        for name in sorted(frames.namelist()):
            with frames.open(name) as frame:
                shutil.copyfileobj(frame, file)


def _read_url(param: str, url: str, settings: Settings) -> bytes:
    if settings.image_urls != "data" and url.partition(":")[0].lower() in ("http", "https"):
        network = PublicNetwork(allow_private=settings.image_urls == "any")
        return download(param, url, network, settings.max_upload_bytes, settings.reference_timeout_seconds)
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma or not head.endswith(";base64"):
        raise InvalidRequestError(
            f"{param} has an image_url that is not a data URL; send data:image/png;base64,... or upload the file", param
        )
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise InvalidRequestError(f"{param} has an image_url that is not valid base64", param) from None
