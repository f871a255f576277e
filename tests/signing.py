"""Certificate chains for C2PA, and its own reader of signed files."""

import datetime
import json
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class Authority:
    """A root certificate that issues signing certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        builder = _builder("root", "root", self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._root = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        self.root_pem = self._root.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, key: SigningKey, days: int = 30) -> tuple[Path, Path]:
        """The files of a certificate chain and of its key."""
        builder = _builder("signer", "root", key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(purpose, critical=False).add_extension(issuer, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        (folder / "chain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + self.root_pem)
        (folder / "key.pem").write_bytes(private_pem(key))
        return folder / "chain.pem", folder / "key.pem"


def _builder(subject: str, issuer: str, key: object, days: int = 30) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name(issuer))
    builder = builder.public_key(key).serial_number(x509.random_serial_number())  # type: ignore[arg-type]
    start = now - datetime.timedelta(days=60)
    return builder.not_valid_before(start).not_valid_after(now + datetime.timedelta(days=days))


def _name(name: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "FrameDiT tests")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), organization])


def _key_usage(**uses: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # type: ignore[assignment]
    return x509.KeyUsage(**(dict.fromkeys(names, False) | uses))


def private_pem(key: SigningKey | x25519.X25519PrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def read_manifest(path: Path, media_type: str, root_pem: bytes) -> tuple[str, dict[str, Any]]:
    """The state of a file's credentials for a verifier that trusts `root_pem`, and its manifest."""
    settings = {"trust": {"user_anchors": root_pem.decode()}, "verify": {"verify_trust": True}}
    context = c2pa.Context(c2pa.Settings.from_dict(settings))
    with path.open("rb") as file, c2pa.Reader(media_type, file, context=context) as reader:
        store = json.loads(reader.json())
        return reader.get_validation_state(), store["manifests"][store["active_manifest"]]
