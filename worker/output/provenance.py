"""The origin of a finished file, which its metadata and its signature state."""

from dataclasses import dataclass
from pathlib import Path

from jobs.settings import FileMetadataLevel, Settings
from jobs.videos.record import VideoRequest
from worker.errors import StartupError
from worker.output.c2pa_signer import C2paSigner
from worker.output.formats.metadata import FileMetadata, describe_request


@dataclass(frozen=True)
class Provenance:
    """How finished files state their origin.

    Attributes:
        level: What the metadata hold: nothing (`off`), all but text of the client (`settings`), or all (`prompts`).
        signer: Signs the files, None: they are not signed.
    """

    level: FileMetadataLevel = "settings"
    signer: C2paSigner | None = None

    def describe(self, request: VideoRequest, checkpoint: str) -> FileMetadata | None:
        """The metadata for the file of `request`. `checkpoint` is the model's fingerprint."""
        return None if self.level == "off" else describe_request(request, checkpoint, self.level == "prompts")

    def sign(self, path: Path, request: VideoRequest, metadata: FileMetadata | None) -> None:
        """Sign the file of `request` at `path`, where there is a signer. Raises as `C2paSigner.sign` does."""
        if self.signer is not None:
            self.signer.sign(path, request.result_kind, metadata)


DEFAULT_PROVENANCE = Provenance()


def provenance_of(settings: Settings) -> Provenance:
    """The provenance that the settings ask for. Raises `StartupError` for files that cannot sign."""
    certificate, key = settings.c2pa_cert, settings.c2pa_key
    if certificate is None and key is None:
        return Provenance(settings.file_metadata)
    if certificate is None or key is None:
        missing = "FRAMEDIT_C2PA_CERT" if certificate is None else "FRAMEDIT_C2PA_KEY"
        raise StartupError(f"{missing} is not set: signing needs both FRAMEDIT_C2PA_CERT and FRAMEDIT_C2PA_KEY")
    return Provenance(settings.file_metadata, C2paSigner(certificate, key))
