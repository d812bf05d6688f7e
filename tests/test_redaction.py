"""No secret in a text that is kept or shown."""

from __future__ import annotations

import pytest

from celery_agents.messages import TRACEBACK_LIMIT, TaskError
from celery_agents.redaction import bounded, redact

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"bad key {KEY}!", "bad key [private key]!"),
        ("cut off -----BEGIN PRIVATE KEY-----\nc2Vj", "cut off [private key]"),
        ("amqp://guest:s3cret@rabbit:5672//", "amqp://guest:***@rabbit:5672//"),
        ("redis://:s3cret@redis:6379/0", "redis://:***@redis:6379/0"),
        ("GET https://media/x.png?X-Goog-Signature=ab12&e=5 failed", "GET https://media/x.png?*** failed"),
        ("url: /media/x.png?token=ab12 (Caused by …)", "url: /media/x.png?*** (Caused by …)"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("https://docs/page?chapter=2 is fine", "https://docs/page?chapter=2 is fine"),
    ],
)
def test_secrets_are_blanked(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_an_error_keeps_no_secret_and_no_more_than_its_bound() -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise ValueError(f"redis://:s3cret@host {KEY} {'x' * 50_000}")

    with pytest.raises(ValueError, match="s3cret") as raised:
        deep(200)
    error = TaskError.from_exception(raised.value, "agent")
    assert "s3cret" not in error.model_dump_json()
    assert "c2VjcmV0" not in error.model_dump_json()
    assert len(error.traceback or "") <= TRACEBACK_LIMIT


def test_both_ends_of_a_long_text_stay() -> None:
    text = bounded("a" * 5_000 + "b" * 5_000, 1_000)
    assert len(text) <= 1_000
    assert text.startswith("a" * 400)
    assert text.endswith("b" * 400)
    assert bounded("short", 1_000) == "short"
