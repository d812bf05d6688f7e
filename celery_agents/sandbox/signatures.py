"""Verification of the two ways in which a request to Encord is signed with an ed25519 key.

v2 follows a draft of RFC 9421: method, request target and body digest are covered, with the time of
signing. v1 (legacy) covers the body only. Both name the key by its raw public bytes in hexadecimal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from .errors import NotAuthenticatedError

_PARAMETERS = re.compile(
    r'\("@method" "@request-target" "content-digest"\)'
    r';created=(?P<created>\d{1,12});keyid="(?P<key>[0-9a-f]{64})";alg="ed25519"'
)
_LABEL = "encord-sig="


def verify_v2(
    method: str, target: str, headers: Mapping[str, str], body: bytes, *, now: float, age: float
) -> str:
    """Check a v2 signature and return the hexadecimal public key that made it.

    `target` is path and query exactly as sent; `headers` has lower-case names; `age` is how many seconds a
    signature may be old (or ahead). Raises `NotAuthenticatedError` with what is wrong.
    """
    parameters = _required(headers, "signature-input").removeprefix(_LABEL)
    match = _PARAMETERS.fullmatch(parameters)
    if match is None:
        raise NotAuthenticatedError("the Signature-Input header is not what an Encord client sends")
    digest = _required(headers, "content-digest")
    if digest != f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:":
        raise NotAuthenticatedError("the Content-Digest header does not match the body")
    if abs(now - int(match["created"])) > age:
        raise NotAuthenticatedError(f"the signature is more than {age:.0f} seconds old or ahead")
    base = "\n".join(
        (
            f'"@method": {method}',
            f'"@request-target": {target}',
            f'"content-digest": {digest}',
            f'"@signature-params": {parameters}',
        )
    )
    _verify(match["key"], _signature(_required(headers, "signature")), base.encode())
    return match["key"]


def verify_v1(authorization: str | None, body: bytes) -> str:
    """Check a legacy `Authorization` header and return the hexadecimal public key that made it.

    Raises `NotAuthenticatedError` with what is wrong.
    """
    key, separator, signature = (authorization or "").partition(":")
    if not separator:
        raise NotAuthenticatedError("the Authorization header is missing or not <public key>:<signature>")
    try:
        raw = bytes.fromhex(signature)
    except ValueError as error:
        raise NotAuthenticatedError("the signature is not hexadecimal") from error
    _verify(key, raw, hashlib.sha256(body).digest())
    return key


def new_private_key() -> str:
    """A fresh private key as OpenSSH text, the format that the SDK reads."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")


def public_key_of(private_key: str) -> str:
    """The hexadecimal public key of an OpenSSH private key. Raises ValueError for any other kind of key."""
    key = load_ssh_private_key(private_key.encode("ascii"), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        # Not TypeError: the text is of the right type and holds the wrong kind of key, as with garbage.
        raise ValueError("the key is not an ed25519 key, the only kind that Encord takes")  # noqa: TRY004
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise NotAuthenticatedError(f"the request has no {name} header")
    return value


def _signature(header: str) -> bytes:
    encoded = header.removeprefix(f"{_LABEL}:").removesuffix(":")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise NotAuthenticatedError("the Signature header is not base64") from error


@lru_cache(maxsize=256)
def _public_key(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


def _verify(key: str, signature: bytes, signed: bytes) -> None:
    try:
        _public_key(key).verify(signature, signed)
    except ValueError as error:
        raise NotAuthenticatedError("the key id is not an ed25519 public key in hexadecimal") from error
    except InvalidSignature as error:
        raise NotAuthenticatedError("the signature does not fit the request") from error
