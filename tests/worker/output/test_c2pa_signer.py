"""Files signed with a certificate chain of this test, and verified by C2PA's own reader."""

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from jobs.settings import Settings
from jobs.videos.record import ArtifactKind
from tests.signing import Authority, SigningKey, private_pem, read_manifest
from worker.errors import StartupError
from worker.output.c2pa_signer import C2paSigner
from worker.output.formats.encoding import Encoding
from worker.output.formats.metadata import DIGITAL_SOURCE_TYPE, FileMetadata
from worker.output.formats.writers import WRITERS
from worker.output.provenance import provenance_of

METADATA = FileMetadata({"software": "FrameDiT server 1.0", "model": "tiny", "seed": 7})
MEDIA_TYPES: dict[ArtifactKind, str] = {
    "video": "video/mp4",
    "gif": "image/gif",
    "webp": "image/webp",
    "image": "image/png",
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def write(kind: ArtifactKind, path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1 if kind == "image" else 8, 48, 64, 3), dtype=np.uint8)
    WRITERS[kind](frames, path, Encoding(8, metadata=METADATA))


@pytest.mark.parametrize("kind", list(MEDIA_TYPES))
def test_a_verifier_that_trusts_the_root_accepts_a_signed_file(
    authority: Authority, tmp_path: Path, kind: ArtifactKind
) -> None:
    signer = C2paSigner(*authority.issue(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    write(kind, tmp_path / "out")
    unsigned = (tmp_path / "out").stat().st_size
    signer.sign(tmp_path / "out", kind, METADATA)
    state, manifest = read_manifest(tmp_path / "out", MEDIA_TYPES[kind], authority.root_pem)
    assert state == "Trusted"
    assertions = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    [action] = assertions["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", DIGITAL_SOURCE_TYPE)
    assert assertions["org.framedit.generation"] == METADATA.content
    assert manifest["claim_generator_info"][0]["name"] == "FrameDiT server"
    assert (tmp_path / "out").stat().st_size - unsigned < 20_000


def test_a_changed_file_is_not_accepted(authority: Authority, tmp_path: Path) -> None:
    signer = C2paSigner(*authority.issue(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    write("video", tmp_path / "out")
    signer.sign(tmp_path / "out", "video", None)
    content = bytearray((tmp_path / "out").read_bytes())
    content[content.index(b"mdat") + 2000] ^= 1
    (tmp_path / "out").write_bytes(content)
    assert read_manifest(tmp_path / "out", "video/mp4", authority.root_pem)[0] == "Invalid"


@pytest.mark.parametrize("kind", ["webm", "frames"])
def test_a_format_that_c2pa_cannot_sign_stays_as_it_is(
    authority: Authority, tmp_path: Path, kind: ArtifactKind
) -> None:
    signer = C2paSigner(*authority.issue(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    write(kind, tmp_path / "out")
    content = (tmp_path / "out").read_bytes()
    signer.sign(tmp_path / "out", kind, METADATA)
    assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_other_kinds_of_keys_sign(authority: Authority, tmp_path: Path, key: SigningKey) -> None:
    signer = C2paSigner(*authority.issue(tmp_path, key))
    write("image", tmp_path / "out")
    signer.sign(tmp_path / "out", "image", None)
    assert read_manifest(tmp_path / "out", "image/png", authority.root_pem)[0] == "Trusted"


def test_files_that_cannot_sign_are_refused_at_the_start(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    other = tmp_path / "other.pem"

    def refusal(certificate: Path | None, private: Path | None) -> str:
        with pytest.raises(StartupError) as caught:
            provenance_of(Settings(c2pa_cert=certificate, c2pa_key=private))
        return caught.value.message

    assert "FRAMEDIT_C2PA_KEY is not set" in refusal(chain, None)
    assert "FRAMEDIT_C2PA_CERT is not set" in refusal(None, key)
    assert "which cannot be read: No such file" in refusal(tmp_path / "missing.pem", key)
    other.write_bytes(b"rubbish")
    assert "is not a private key in PEM" in refusal(chain, other)
    assert "cannot sign with FRAMEDIT_C2PA_CERT" in refusal(other, key)
    other.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    assert "belongs to the key" in refusal(chain, other)
    other.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), password=b"secret"))
    assert "which is encrypted" in refusal(chain, other)
    other.write_bytes(private_pem(x25519.X25519PrivateKey.generate()))
    assert "of a kind that C2PA does not allow" in refusal(chain, other)


def test_an_expired_certificate_is_refused_at_the_start(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue(tmp_path, ec.generate_private_key(ec.SECP256R1()), days=-1)
    with pytest.raises(StartupError, match="cannot sign with FRAMEDIT_C2PA_CERT"):
        C2paSigner(chain, key)
