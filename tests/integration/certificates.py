"""Certificate authorities and certificates for tests, in PEM files."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heddle.local.ports import HOST

_LIFETIME = dt.timedelta(hours=12)
_CLOCK_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """Files of one certificate. `with_key` holds key and certificate in one, as Kafka wants its key store."""

    certificate: Path
    key: Path
    with_key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(name, key, builder.sign(key, hashes.SHA256()))

    def write(self, folder: Path) -> Path:
        """The file of trusted authorities that holds this one."""
        path = folder / f"{self.name.replace(' ', '-')}.pem"
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def issue(self, folder: Path, name: str) -> Identity:
        """A certificate for this host, as a server's and as a client's; `name` is its common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        builder = _builder(name, self.name, key).add_extension(usage, critical=False)
        certificate = builder.add_extension(addresses, critical=False).sign(self.key, hashes.SHA256())
        # PKCS 8: a key in the older form ("EC PRIVATE KEY") stops the broker.
        pem_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem = certificate.public_bytes(Encoding.PEM)
        files = Identity(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}-with-key.pem")
        for path, content in ((files.certificate, pem), (files.key, pem_key), (files.with_key, pem_key + pem)):
            path.touch(mode=0o600)
            path.write_bytes(content)
        return files


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
