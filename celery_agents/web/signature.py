"""Encord's signature on what it sends to a configured URL: whether a request is Encord's, and recent.

What Encord signs, as its own package verifies it (encord-agents, ``core/webhooks.py`` and ``core/constants.py``, and
https://docs.encord.com/agents-documentation/Custom-Agents/Task-ready-notifications-sdk):

* ``X-Encord-Timestamp``: when it was signed, in whole seconds since 1970;
* ``X-Encord-Signature``: HMAC-SHA256, in hexadecimal digits, of the timestamp as it was sent, a full stop, and the
  body's bytes; its key is the signing secret that the app shows beside the URL;
* a request whose timestamp is more than 300 s from now is refused, as one that somebody has recorded and sends again.

Nothing here knows HTTP: what came goes in as text and bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from typing import Self

from celery_agents.errors import DeclarationError

SIGNATURE_HEADER, TIMESTAMP_HEADER = "X-Encord-Signature", "X-Encord-Timestamp"
#: Where secrets are looked for that are not given; several are separated by commas or spaces.
SECRET_VARIABLE = "ENCORD_WEBHOOK_SECRET"  # noqa: S105  # its name, not a secret
#: How far the signed timestamp may be from now, in seconds.
TOLERANCE = 300.0
#: Signatures of one request that are looked at. Encord sends one; while it changes how it signs it may send more.
MOST_SIGNATURES = 10

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class UnverifiedError(Exception):
    """Raised for a request that is not known to be Encord's. The sentence is for the log of whoever serves it."""


class Secrets:
    """Signing secrets, of which one must fit: Encord makes one for each URL, and old ones overlap with new ones.

    Args:
        given: One or several; by default those in ``ENCORD_WEBHOOK_SECRET``.

    Raises:
        DeclarationError: There is none.
    """

    def __init__(self, given: str | Iterable[str] | None = None) -> None:
        found = _split(os.environ.get(SECRET_VARIABLE, "")) if given is None else _listed(given)
        self._keys = tuple(each.strip().encode() for each in found if each.strip())
        if not self._keys:
            raise DeclarationError(
                "The webhook has no signing secret: pass the one that the Encord app shows beside the webhook's URL, "
                f"or set {SECRET_VARIABLE} to it."
            )

    @classmethod
    def if_any(cls, given: str | Iterable[str] | None = None) -> Self | None:
        """Return the secrets, or None where none are given and the environment has none."""
        return None if given is None and not _split(os.environ.get(SECRET_VARIABLE, "")) else cls(given)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._keys)}>"

    def fit(self, signed: bytes, signatures: Iterable[str]) -> bool:
        """Return whether one of *signatures* is of *signed*, in a time that does not depend on how nearly."""
        given = [each.encode(errors="surrogateescape") for each in signatures]
        right = [hmac.new(key, signed, hashlib.sha256).hexdigest().encode() for key in self._keys]
        found = [hmac.compare_digest(ours, theirs) for ours in right for theirs in given]
        return any(found)  # after every pair was compared, whichever fits


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _listed(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def verify(
    body: bytes,
    signatures: Sequence[str],
    timestamps: Sequence[str],
    secrets: Secrets,
    now: float,
    tolerance: float = TOLERANCE,
) -> None:
    """Check that Encord has signed *body*, a short time ago.

    Args:
        body: The bytes as they came.
        signatures: The values of all signature headers.
        timestamps: The values of all timestamp headers.
        secrets: Of which one must fit.
        now: The present, in seconds since 1970.
        tolerance: How far the timestamp may be from it.

    Raises:
        UnverifiedError: It is not known to be Encord's.
    """
    if not signatures or not timestamps:
        missing = " and ".join(
            name
            for name, values in ((SIGNATURE_HEADER, signatures), (TIMESTAMP_HEADER, timestamps))
            if not values
        )
        raise UnverifiedError(f"The header {missing} is missing.")
    timestamp = _timestamp(timestamps)
    if abs(now - int(timestamp)) > tolerance:
        raise UnverifiedError(
            f"It was signed {abs(now - int(timestamp)):.0f} s from now, more than {tolerance:.0f} s: it is a replay, "
            "or a clock is wrong."
        )
    listed = [each.strip() for value in signatures for each in value.split(",")]
    if not secrets.fit(timestamp.encode() + b"." + body, listed[:MOST_SIGNATURES]):
        raise UnverifiedError(
            "The signature does not fit: the signing secret is another, or the body was changed."
        )


def _timestamp(values: Sequence[str]) -> str:
    if len(values) > 1 or not _TIMESTAMP.fullmatch(values[0]):
        raise UnverifiedError(f"The header {TIMESTAMP_HEADER} is not one number of seconds.")
    return values[0]
