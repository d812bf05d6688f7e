"""Keep secrets out of text that people and other systems will read: errors, tracebacks, logs.

Every pattern here takes time in proportion to the text: none starts over at each character, and what repeats cannot be
read in two ways. Text is redacted before it is cut, for half a secret is not recognised any more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache

#: Longest secret that is looked for where a text is too long to be read whole, in characters. A private key has some
#: hundred to some thousand, a signed URL or a token up to about four thousand.
LONGEST_SECRET = 16_384

#: The environment variable that holds Encord's private key itself, and not its path.
KEY_VARIABLE = "ENCORD_SSH_KEY"

# A pattern never takes a double quote along, nor half of an escape such as \": redacted JSON is still JSON.
_BEGIN, _END = r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----", r"-----END [A-Z ]{0,40}PRIVATE KEY-----"
#: What base64 looks like in a file, and in the repr of a text or in JSON, where a line's end is written as ``\n``.
_BASE64 = r"(?:[A-Za-z0-9+/=\s]|\\+[nr])"
#: How every OpenSSH private key begins below its first line ("openssh-key-v1"), and one of ed25519 in PKCS 8.
_KEY_BODY = r"(?:b3BlbnNzaC1rZXktdjE|MC4CAQAwBQYDK2VwBCIE)"
#: A query's parameters that make a URL a secret, or are one.
_SECRET_PARAMETER = re.compile(r"sig|token|expires|key|credential|password|secret|policy|auth", re.IGNORECASE)


def _without_query(found: re.Match[str]) -> str:
    address, query = found["address"], found["query"]
    if "/" not in address or not _SECRET_PARAMETER.search(query):
        return found[0]
    # A bracket or full stop behind it belongs to the sentence.
    return f"{address}?***{query[len(query.rstrip(').,;:]}')) :]}"


# What a secret looks like, and what stands in for it. Signed URLs carry their signature in the query, brokers and
# databases their password before the host, keys come as PEM blocks or pieces of them, tokens in headers.
_PATTERNS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(rf'{_BEGIN}(?:(?:(?!-----BEGIN)[^"]){{0,{LONGEST_SECRET}}}?{_END}|{_BASE64}*+)'),
        "[private key]",
    ),
    (re.compile(rf"{_KEY_BODY}{_BASE64}*+(?:{_END})?"), "[private key]"),
    (
        # Up to the last @, because a password that was not encoded may have one; but a port is no password.
        re.compile(
            r"(?P<user>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://[^\s/:@\"]*+):"
            r"(?!\d{1,5}(?:[/?#'\"<>,;)\]}\s]|\Z))(?:(?!://)[^\s\"])*@",
            re.IGNORECASE,
        ),
        r"\g<user>:***@",
    ),
    (re.compile(r"(?<![^\s'\"<>\\])(?P<address>[^\s'\"<>\\?]*+)\?(?P<query>[^\s'\"<>\\]++)"), _without_query),
    (re.compile(r"\b(?P<scheme>Bearer)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\g<scheme> ***"),
    (
        re.compile(
            r"\b(?P<name>(?:Authorization|Signature)['\"]?\s{0,4}[:=]\s{0,4}['\"]?)(?!Bearer \*)[^\s'\"\\,}]++"
        ),
        r"\g<name>***",
    ),
    # urllib's complaint of a password that was not encoded.
    (re.compile(r"(?P<what>Port could not be cast to integer value as )'[^']{0,200}'"), r"\g<what>'***'"),
    (re.compile(r"\b(?P<name>password|passwd|pwd)=[^\s&;,'\"\\)]++", re.IGNORECASE), r"\g<name>=***"),
)

#: What is left of a private key at the start of a text that begins somewhere inside it.
_KEY_TAIL = re.compile(rf'\A(?:(?!-----BEGIN)[^"]){{0,{LONGEST_SECRET}}}?{_END}')


def redact(text: str) -> str:
    """Return *text* with private keys, passwords in URLs, signed URLs' queries and tokens blanked out."""
    for line in _key_lines(os.environ.get(KEY_VARIABLE, "")):
        text = text.replace(line, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=1)
def _key_lines(key: str) -> tuple[str, ...]:
    """Return the lines of this process's own key: whoever prints a part of it prints some of them."""
    return tuple(line for line in key.split() if len(line) >= 20 and not line.startswith("-----"))


def bounded(text: str, limit: int) -> str:
    """Return *text* cut in its middle to at most *limit* characters: both ends of a traceback tell something."""
    return text if len(text) <= limit else _joined(text, text, len(text), limit)


def _joined(head: str, tail: str, length: int, limit: int) -> str:
    mark = f"\n… {length - limit} characters left out …\n"
    half = max((limit - len(mark)) // 2, 0)
    return f"{head[:half]}{mark}{tail[max(len(tail) - half, 0) :]}"[:limit]


def excerpt(text: str, limit: int) -> str:
    """Return what may be kept of *text*: no secret, at most *limit* characters, nothing that cannot be written.

    Takes the same time for any text that is much longer than the limit: only its ends are read. Of what is cut there,
    as much as the longest secret has is left out, so that no half of one is shown.
    """
    window = limit + 2 * LONGEST_SECRET
    if len(text) <= 2 * window:
        return bounded(writable(redact(text)), limit)
    head = redact(text[:window])[:-LONGEST_SECRET]
    tail = redact(_KEY_TAIL.sub("[private key]", text[-window:]))[LONGEST_SECRET:]
    return _joined(writable(head), writable(tail), len(text), limit)


#: Control characters but for tabs and line ends: a terminal would obey them, PostgreSQL refuses NUL.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def writable(text: str) -> str:
    """Return *text* with what JSON, a database or a terminal cannot take written as an escape.

    A lone surrogate is what Python makes of a file name that is not UTF-8; nothing can encode it.
    """
    if text.isprintable():
        return text
    return text.translate(_CONTROLS).encode(errors="backslashreplace").decode()
