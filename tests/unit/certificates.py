"""Certificates for tests: authorities and what they sign."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(name: str = "Example authority", *, authority: bool = True, days: int = 30) -> str:
    """A self-signed certificate in PEM that ends in `days` from now (negative: it has ended)."""
    now = datetime.datetime.now(datetime.UTC)
    constraints = x509.BasicConstraints(ca=authority, path_length=None)
    day = datetime.timedelta(days=1)
    return _signed_by_itself(name, now - 400 * day, now + days * day, constraints, critical=True)


def server_certificate(names: Sequence[str], *, days: int = 90) -> str:
    """A certificate of a server for these names in PEM, signed by itself, that ends an hour before `days` from now."""
    now = datetime.datetime.now(datetime.UTC)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    ends = now + datetime.timedelta(days=days, hours=-1)
    return _signed_by_itself(names[0], now - datetime.timedelta(hours=2), ends, alternatives, critical=False)


def _signed_by_itself(
    name: str,
    begins: datetime.datetime,
    ends: datetime.datetime,
    extension: x509.ExtensionType,
    *,
    critical: bool,
) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(extension, critical=critical)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode("ascii")
