"""Signs finished files with C2PA content credentials."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.errors import FrameditError
from jobs.videos.record import ArtifactKind
from worker.errors import StartupError
from worker.output.formats.metadata import DIGITAL_SOURCE_TYPE, SOFTWARE, FileMetadata, software_version

# C2PA cannot sign a WebM or a ZIP of images.
_MEDIA_TYPES: dict[ArtifactKind, str] = {
    "video": "video/mp4",
    "gif": "image/gif",
    "webp": "image/webp",
    "image": "image/png",
}
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}  # it would be larger than the file
_VALID = ("Valid", "Trusted")


class SigningError(FrameditError):
    """A file could not be signed."""

    code = "signing_failed"


class C2paSigner:
    """A certificate and its key. Signing is not deterministic: each signature has an id of its own."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `StartupError` for files that cannot sign."""
        try:
            import c2pa
        except ImportError:
            raise StartupError("FRAMEDIT_C2PA_CERT needs c2pa-python: pip install 'framedit-server[c2pa]'") from None
        self._c2pa = c2pa
        chain, secret = _read("FRAMEDIT_C2PA_CERT", certificate), _read("FRAMEDIT_C2PA_KEY", key)
        algorithm = _algorithm(secret, key)
        try:
            self._context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))
            self._signer = c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(getattr(c2pa.C2paSigningAlg, algorithm), chain, secret, None)
            )
            self._check()
        except c2pa.C2paError as error:
            raise StartupError(
                f"cannot sign with FRAMEDIT_C2PA_CERT {certificate} and FRAMEDIT_C2PA_KEY {key}: {error}; the "
                "certificate must be a PEM chain, its own first, that permits signatures and belongs to the key"
            ) from None

    def sign(self, path: Path, kind: ArtifactKind, metadata: FileMetadata | None) -> None:
        """Sign the file at `path`. A format that C2PA cannot sign stays as it is.

        :raises SigningError: when it cannot be signed.
        """
        if kind not in _MEDIA_TYPES:
            return
        try:
            signed = self._signed(path.read_bytes(), _MEDIA_TYPES[kind], metadata)
        except self._c2pa.C2paError as error:
            raise SigningError(f"the file could not be signed: {error}") from error
        path.write_bytes(signed)

    def _signed(self, content: bytes, media_type: str, metadata: FileMetadata | None) -> bytes:
        target = io.BytesIO()
        with self._c2pa.Builder(_manifest(metadata), self._context) as builder:
            builder.sign(self._signer, media_type, io.BytesIO(content), target)
        return target.getvalue()

    def _check(self) -> None:
        """Sign a small image and verify it. It need not be trusted: verifiers have their own lists for that."""
        image = io.BytesIO()
        Image.new("RGB", (8, 8)).save(image, "PNG")
        signed = io.BytesIO(self._signed(image.getvalue(), "image/png", None))
        with self._c2pa.Reader("image/png", signed, context=self._context) as reader:
            if reader.get_validation_state() not in _VALID:
                faults = json.loads(reader.json()).get("validation_status") or []
                raise self._c2pa.C2paError("; ".join(fault.get("explanation", fault["code"]) for fault in faults))


def _manifest(metadata: FileMetadata | None) -> dict[str, Any]:
    generator = {"name": SOFTWARE, "version": software_version()}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": DIGITAL_SOURCE_TYPE,
        "softwareAgent": generator,
    }
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}]
    if metadata is not None:
        assertions.append({"label": "org.framedit.generation", "data": metadata.content})
    return {"claim_generator_info": [generator], "assertions": assertions}


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{setting} is {path}, which cannot be read: {error.strerror}") from None


def _algorithm(key: bytes, path: Path) -> str:
    """The name of C2PA's algorithm for a private key in PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(key, password=None)
    except TypeError:
        raise StartupError(f"FRAMEDIT_C2PA_KEY is {path}, which is encrypted; store it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StartupError(f"FRAMEDIT_C2PA_KEY is {path}, which is not a private key in PEM") from None
    match loaded:
        case ec.EllipticCurvePrivateKey() if loaded.curve.key_size in (256, 384, 521):
            return {256: "ES256", 384: "ES384", 521: "ES512"}[loaded.curve.key_size]
        case ed25519.Ed25519PrivateKey():
            return "ED25519"
        case rsa.RSAPrivateKey():
            return "PS256"
        case _:
            raise StartupError(
                f"FRAMEDIT_C2PA_KEY is {path}, of a kind that C2PA does not allow; use ECDSA on P-256, P-384 or P-521, "
                "Ed25519 or RSA"
            )
