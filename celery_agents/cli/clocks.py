"""Compare this machine's clock with Encord's and the broker's.

Encord refuses a signature that is older than some minutes, and a clock that differs makes every one look so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from kombu.connection import Connection

from celery_agents.cli.findings import Finding, failed, ok, warning

#: Seconds after which a signature is taken to be refused; the real limit is not documented.
SIGNATURE_LIFETIME = 300.0
#: Seconds that clocks may differ before it is worth a word.
TOLERANCE = 30.0
#: Seconds that Encord has to answer.
TIMEOUT = 5.0

_ADVICE = "set this machine's clock (timedatectl set-ntp true)"


def encords(domain: str) -> float | None:
    """Return what Encord's clock says, in Unix seconds, or None where it does not tell. Any answer will do."""
    try:
        with urlopen(Request(domain, method="HEAD"), timeout=TIMEOUT) as answer:  # noqa: S310 - the SDK's domain
            date = answer.headers.get("Date")
    except HTTPError as answer:
        date = answer.headers.get("Date")
    except OSError:
        return None
    return parsedate_to_datetime(date).timestamp() if date else None


def brokers(connection: Connection) -> float | None:
    """Return what the broker's clock says, in Unix seconds, or None where it has no such command."""
    if connection.transport.driver_type != "redis":
        return None
    channel: Any = connection.default_channel
    seconds, microseconds = channel.client.time()
    return float(seconds) + float(microseconds) / 1_000_000


def compare(whose: str, read: Callable[[], float | None]) -> Finding | None:
    """Return a finding about how *whose* clock and this machine's differ, or None where it cannot be read."""
    before = time.time()
    theirs = read()
    if theirs is None:
        return None
    ahead = (before + time.time()) / 2 - theirs
    text = f"this machine is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose}"
    if abs(ahead) >= SIGNATURE_LIFETIME:
        return failed("clock", f"{text}; signed requests and message expiry go wrong", _ADVICE)
    if abs(ahead) >= TOLERANCE:
        return warning("clock", text, _ADVICE)
    return ok("clock", f"agrees with {whose} to {max(abs(ahead), 1):.0f} s")
