"""A certificate for HTTPS on this machine, made for one run and kept nowhere."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFE = dt.timedelta(days=7)
_LEEWAY = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key."""

    pem: str
    """What clients have to trust: the content of the file that `REQUESTS_CA_BUNDLE` names."""
    _key_pem: str

    def __repr__(self) -> str:
        # Not the default of a dataclass: the private key must never be shown.
        return "<Certificate>"

    def context(self) -> ssl.SSLContext:
        """How a server presents it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The ssl module reads files only.
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder) / "chain.pem"
            chain.touch(mode=0o600)
            chain.write_text(self._key_pem + self.pem, encoding="ascii")
            context.load_cert_chain(chain)
        return context


def new_certificate(address: str) -> Certificate:
    """Make a certificate for an IP address, or a name, and for `localhost`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "celery-agents sandbox")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + _LIFE)
        .add_extension(
            x509.SubjectAlternativeName([_subject(address), x509.DNSName("localhost")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem.decode())


def _subject(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
