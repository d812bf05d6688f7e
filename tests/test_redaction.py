"""No secret in a text that is kept or shown, and no text that takes long."""

from __future__ import annotations

import json
import time

import pytest

from celery_agents.redaction import LONGEST_SECRET, bounded, excerpt, redact, writable

SECRET = "s3cretS3CRET"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"
SIGNED = f"https://media/x.png?X-Goog-Signature={SECRET}&e=5"


# What is a secret and what stands in for it, one a line.
SHOWN = [
    # private keys, whole and cut off, in a file's text and in a repr
    (f"bad key {KEY}!", "bad key [private key]!"),
    (f"bad key {KEY!r}!", "bad key '[private key]'!"),
    ("cut off -----BEGIN PRIVATE KEY-----\nc2Vj", "cut off [private key]"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,0A\n\nc2Vj\n-----END RSA PRIVATE KEY-----",
        "[private key]",
    ),
    ("only the body: b3BlbnNzaC1rZXktdjEAAAAABG5vbmU=", "only the body: [private key]"),
    # passwords in URLs, also where they should have been encoded
    (f"amqp://guest:{SECRET}@rabbit:5672//", "amqp://guest:***@rabbit:5672//"),
    (f"redis://:{SECRET}@redis:6379/0", "redis://:***@redis:6379/0"),
    (f"amqp://guest:a/{SECRET}@rabbit//", "amqp://guest:***@rabbit//"),
    (f"amqp://guest:a@{SECRET}@rabbit//", "amqp://guest:***@rabbit//"),
    (f"redis://:12345{SECRET}@redis", "redis://:***@redis"),
    (f"amqp://a:{SECRET}@one;amqp://b:{SECRET}@two", "amqp://a:***@one;amqp://b:***@two"),
    (f"['redis://:{SECRET}@one', 'redis://:{SECRET}@two']", "['redis://:***@one', 'redis://:***@two']"),
    (f"connect(host='h', password={SECRET})", "connect(host='h', password=***)"),
    (
        f"Port could not be cast to integer value as '{SECRET}'",
        "Port could not be cast to integer value as '***'",
    ),
    # signed URLs, and pieces of them
    (f"GET {SIGNED} failed", "GET https://media/x.png?*** failed"),
    (f"({SIGNED}).", "(https://media/x.png?***)."),
    (f"url: /media/x.png?token={SECRET} (Caused by …)", "url: /media/x.png?*** (Caused by …)"),
    (f"redis+socket:///run/redis.sock?password={SECRET}", "redis+socket:///run/redis.sock?***"),
    # headers
    (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
    (f"{{'Authorization': 'abc:{SECRET}'}}", "{'Authorization': '***'}"),
    # what is none
    ("https://docs/page?chapter=2 is fine", "https://docs/page?chapter=2 is fine"),
    ("http://host:8080/x@2x.png is fine", "http://host:8080/x@2x.png is fine"),
    ("who? he/she", "who? he/she"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_secrets_are_blanked(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("text", [text for text, _ in SHOWN])
def test_redacted_json_is_json(text: str) -> None:
    """The command line redacts the JSON that it prints."""
    for indent in (None, 2):
        document = json.dumps(
            {"a": text, "b": [text, json.dumps({"c": text})], "mail": "me@example.com"}, indent=indent
        )
        assert json.loads(redact(document))["mail"] == "me@example.com"
        assert SECRET not in redact(document)


def test_a_part_of_this_process_own_key_is_blanked(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "QyNTUxOQAAACDvS6mk1qPIC7L4eFTmJTbMJ3q"
    monkeypatch.setenv(
        "ENCORD_SSH_KEY", f"-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n-----END OPENSSH PRIVATE KEY-----"
    )
    assert redact(f"the second line is {line}, they say") == "the second line is ***, they say"


# A text of which a pattern might start over at each character, or look back from each.
REPEATED = [
    "a", "a.", "/", "/a", "a://", "a://b:", "a://b:c@", "a://b:1/", "?", "a/?", "/x?sig=", "@", "\\", '"', "'", "x ", "\n",
    "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "b3BlbnNzaC1rZXktdjE", "Bearer ", "Authorization: ",
    "password=", "\x00", "\udce9", "é",
]  # fmt: skip


@pytest.mark.parametrize("piece", REPEATED, ids=ascii)
def test_no_text_takes_long(piece: str) -> None:
    """Seconds for a quarter of a megabyte, where a pattern that starts over takes minutes; and no more for 20 MB."""
    began = time.thread_time()
    redact(piece * (250_000 // len(piece)))
    assert len(excerpt(piece * (20_000_000 // len(piece)), 1_000)) <= 1_000
    assert time.thread_time() - began < 5


LIMIT = 1_000  # of the excerpts below
WINDOW = LIMIT + 2 * LONGEST_SECRET  # what is read at each end


def assert_no_part_is_shown(text: str) -> None:
    kept = excerpt(text, LIMIT)
    assert len(kept) <= LIMIT
    assert not any(piece in kept for piece in (SECRET[:6], SECRET[-6:], "c2Vjcm", "b3Blbn")), kept


@pytest.mark.parametrize("length", [10, 2_000, 100_000])
@pytest.mark.parametrize(
    "secret", [KEY, SIGNED, f"redis://:{SECRET}@host", f"Bearer {SECRET * 100}"], ids=lambda s: s[:6]
)
def test_a_secret_is_not_cut_in_two(secret: str, length: int) -> None:
    """Wherever it lies: at the ends of what is kept, and at the ends of what is read."""
    for edge in (0, LIMIT // 2, LIMIT, WINDOW - LONGEST_SECRET, WINDOW):
        for shift in range(-len(secret) - 60, 1, max(len(secret) // 6, 4)):
            before = "x " * (max(edge + shift, 0) // 2)
            after = " x" * (max(length - len(before), 0) // 2)
            assert_no_part_is_shown(before + secret + after)
            assert_no_part_is_shown(after[::-1] + secret + before[::-1])


def test_a_secret_is_not_cut_in_two_where_others_make_the_text_short() -> None:
    """Of a window full of keys so little is left that what was cut at its end would come into view."""
    key = f"-----BEGIN PRIVATE KEY-----{'A' * 11_000}-----END PRIVATE KEY----- "
    url = f" redis://:{SECRET * 20}@host "
    for room in range(10, len(url), 40):
        filled = key * 3 + "x" * (WINDOW - 3 * len(key) - room)
        assert_no_part_is_shown(filled + url + " x" * 100_000)
        assert_no_part_is_shown("x " * 100_000 + url + filled[::-1].replace(key[::-1], key))


def test_both_ends_of_a_long_text_stay() -> None:
    for cut in (bounded, excerpt):
        for length in (5_000, 500_000):
            text = cut("a" * length + "b" * length, 1_000)
            assert len(text) <= 1_000
            assert text.startswith("a" * 400)
            assert text.endswith("b" * 400)
            assert "characters left out" in text
        assert cut("short", 1_000) == "short"


@pytest.mark.parametrize("limit", range(60))
def test_a_small_bound_is_kept_as_well(limit: int) -> None:
    assert len(bounded("a" * 1_000, limit)) <= limit


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("caf\udce9.png", "caf\\udce9.png"),  # a file name that is not UTF-8
        ("nul\x00", "nul\\x00"),
        ("\x1b[31mred\rover", "\\x1b[31mred\\x0dover"),
        ("é 中 🙂", "é 中 🙂"),
    ],
)
def test_what_cannot_be_written_is_escaped(text: str, written: str) -> None:
    assert writable(text) == written
