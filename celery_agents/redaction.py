"""Keep secrets out of text that people and other systems will read: errors, tracebacks, logs."""

from __future__ import annotations

import re

# What a secret looks like, and what stands in for it. Signed URLs carry their signature in the query, brokers and
# databases their password before the host, keys come as PEM blocks or as Encord's bearer and legacy headers.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        "[private key]",
    ),
    (re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE), r"\g<scheme>:***@"),
    (
        re.compile(
            r"(?P<url>(?:https?://|/)[^\s?'\"<>]*)\?[^\s'\"<>)]*(?:sig|token|expires|key)[^\s'\"<>)]*",
            re.IGNORECASE,
        ),
        r"\g<url>?***",
    ),
    (re.compile(r"\b(?P<scheme>Bearer)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\g<scheme> ***"),
)


def redact(text: str) -> str:
    """Return *text* with private keys, passwords in URLs, signed URLs' queries and bearer tokens blanked out."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def bounded(text: str, limit: int) -> str:
    """Return *text* cut in its middle to at most *limit* characters: both ends of a traceback tell something."""
    if len(text) <= limit:
        return text
    mark = f"\n… {len(text) - limit} characters left out …\n"
    half = max((limit - len(mark)) // 2, 0)
    return f"{text[:half]}{mark}{text[len(text) - half :]}"
