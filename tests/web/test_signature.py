"""Whether a request is Encord's: everything that an attacker, a proxy or a wrong clock may do to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from celery_agents import DeclarationError
from celery_agents.web import Secrets, UnverifiedError, verify
from tests.web.encord import SECRET, signed

NOW = 1_790_000_000.5
BODY = b'{"event_type": "agent_stage_work_available_event", "title": "Stra\\u00dfe"}'
HEADERS = signed(BODY, at=NOW)
SIGNATURE, TIMESTAMP = HEADERS["X-Encord-Signature"], HEADERS["X-Encord-Timestamp"]
OTHER = "another secret, of another stage or of last year"


def check(
    body: bytes = BODY,
    signatures: tuple[str, ...] = (SIGNATURE,),
    timestamps: tuple[str, ...] = (TIMESTAMP,),
    secrets: Secrets | None = None,
    now: float = NOW,
    **options: float,
) -> None:
    verify(body, signatures, timestamps, secrets or Secrets(SECRET), now, **options)


def test_what_encord_signed_is_encord_s() -> None:
    check()


def test_the_signature_is_of_a_known_kind() -> None:
    """Made by ``printf '1700000000.{}' | openssl dgst -sha256 -hmac secret``."""
    signature = "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    check(b"{}", (signature,), ("1700000000",), Secrets("secret"), 1_700_000_000)


@pytest.mark.parametrize("position", [0, len(BODY) // 2, len(BODY) - 1])
def test_a_changed_byte_is_noticed(position: int) -> None:
    changed = bytearray(BODY)
    changed[position] ^= 1
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(bytes(changed))


@pytest.mark.parametrize("change", [lambda body: body + b" ", lambda body: body[:-1], lambda _: b""])
def test_the_same_json_in_other_bytes_is_another_body(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(change(BODY))


def test_a_timestamp_that_was_replaced_does_not_fit() -> None:
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(timestamps=(str(int(NOW) + 1),))


@pytest.mark.parametrize("seconds", [-3600, -301, 302, 3600, 10**9])
def test_what_was_recorded_and_is_sent_later_is_refused(seconds: int) -> None:
    with pytest.raises(UnverifiedError, match="from now"):
        check(now=NOW + seconds)


@pytest.mark.parametrize("seconds", [-299, 299])
def test_clocks_may_differ_a_little(seconds: int) -> None:
    check(now=NOW + seconds)


def test_how_much_can_be_chosen() -> None:
    check(now=NOW + 900, tolerance=1000)
    with pytest.raises(UnverifiedError, match="more than 5 s"):
        check(now=NOW + 10, tolerance=5)


@pytest.mark.parametrize(
    "timestamp",
    ["", "yesterday", "1.79e9", f" {TIMESTAMP}", f"+{TIMESTAMP}", "-1", "1_790_000_000", "١٧٩", "9" * 400],
)
def test_a_timestamp_is_a_plain_number(timestamp: str) -> None:
    with pytest.raises(UnverifiedError, match=r"is not one number|from now"):
        check(timestamps=(timestamp,))


def test_two_timestamps_are_none() -> None:
    with pytest.raises(UnverifiedError, match="is not one number"):
        check(timestamps=(TIMESTAMP, str(int(TIMESTAMP) - 9999)))


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ({"signatures": ()}, "X-Encord-Signature"),
        ({"timestamps": ()}, "X-Encord-Timestamp"),
        ({"signatures": (), "timestamps": ()}, "X-Encord-Signature and X-Encord-Timestamp"),
    ],
)
def test_a_missing_header_is_named(missing: dict[str, tuple[str, ...]], named: str) -> None:
    with pytest.raises(UnverifiedError, match=f"The header {named} is missing"):
        check(**missing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "signature", ["", "0" * 64, SIGNATURE[:-1], SIGNATURE + "0", "sígnature", "\udcff", "None"]
)
def test_a_wrong_signature_is_refused_and_never_an_error(signature: str) -> None:
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(signatures=(signature,))


def test_of_several_signatures_one_has_to_fit_in_headers_or_in_one() -> None:
    check(signatures=("0" * 64, SIGNATURE))
    check(signatures=(f"{'0' * 64}, {SIGNATURE}",))
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(signatures=("0" * 64, "1" * 64))
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(signatures=(",".join(["0" * 64] * 10_000 + [SIGNATURE]),))  # not so many


def test_of_several_secrets_one_has_to_fit() -> None:
    check(secrets=Secrets([OTHER, SECRET]))
    check(secrets=Secrets([SECRET, OTHER]))
    with pytest.raises(UnverifiedError, match="does not fit"):
        check(secrets=Secrets([OTHER]))


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORD_WEBHOOK_SECRET", f"0123, {SECRET}\n")
    check(secrets=Secrets())
    monkeypatch.setenv("ENCORD_WEBHOOK_SECRET", " ,")
    assert Secrets.if_any() is None
    with pytest.raises(DeclarationError, match="set ENCORD_WEBHOOK_SECRET"):
        Secrets()


@pytest.mark.parametrize("empty", ["", " ", [], [""]])
def test_an_empty_secret_is_none(empty: str | list[str]) -> None:
    with pytest.raises(DeclarationError, match="no signing secret"):
        Secrets(empty)


def test_no_secret_is_shown() -> None:
    shown = repr(Secrets([SECRET, OTHER]))
    assert SECRET not in shown
    with pytest.raises(UnverifiedError) as refused:
        check(signatures=("0" * 64,))
    assert SECRET not in str(refused.value)
    assert SIGNATURE not in str(refused.value)
