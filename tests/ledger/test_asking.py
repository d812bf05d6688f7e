"""Sweeps that were asked for, and messages that were sent."""

from __future__ import annotations

from tests.ledger.conftest import OTHER_STAGE, STAGE, TTL, Site, some


def test_of_many_who_ask_for_a_sweep_the_first_sends_and_the_others_know_of_it(site: Site) -> None:
    ledger = site.ledger
    assert ledger.ask_sweep(STAGE, "a", TTL) == ("a", False)
    ledger.confirm_sweep(STAGE, "a", TTL)
    assert site.another(prefix=ledger.keys.prefix).ask_sweep(STAGE, "b", TTL) == ("a", True)
    assert ledger.ask_sweep(OTHER_STAGE, "c", TTL) == ("c", False)


def test_one_that_may_never_have_been_sent_is_sent_by_the_next(site: Site) -> None:
    ledger = site.ledger
    ledger.ask_sweep(STAGE, "a", TTL)  # and then its process died
    assert ledger.ask_sweep(STAGE, "b", TTL) == ("a", False)


def test_one_that_was_sent_long_ago_is_sent_again(site: Site) -> None:
    """Its queue may have been purged."""
    ledger, key = site.ledger, site.ledger.keys.asked(STAGE)
    ledger.ask_sweep(STAGE, "a", TTL)
    ledger.confirm_sweep(STAGE, "a", TTL)
    sent_at = int(site.client.get(key).split()[1])
    site.client.set(key, f"a {sent_at - 61_000}", keepttl=True)
    assert ledger.ask_sweep(STAGE, "b", TTL) == ("a", False)


def test_who_asks_after_it_has_begun_gets_another(site: Site) -> None:
    ledger = site.ledger
    ledger.ask_sweep(STAGE, "a", TTL)
    assert ledger.begin_sweep(STAGE)
    ledger.confirm_sweep(STAGE, "a", TTL)  # too late: it has begun
    assert ledger.ask_sweep(STAGE, "b", TTL) == ("b", False)
    ledger.confirm_sweep(STAGE, "a", TTL)
    assert ledger.ask_sweep(STAGE, "c", TTL) == ("b", False)
    assert ledger.begin_sweep(STAGE)
    assert not ledger.begin_sweep(STAGE)


def test_what_was_sent_is_known_also_when_it_is_settled(site: Site) -> None:
    ledger, tasks = site.ledger, some(1)
    assert ledger.sent_as("a") is None
    ledger.note_sent("a", "1", TTL)
    assert ledger.sent_as("a") == "1"
    takeover = ledger.take_over(STAGE, "a", tasks, TTL)
    ledger.settle(STAGE, "a", takeover.token, [], where="worker", is_last=True)
    assert ledger.sent_as("a") == "1"


def test_a_delivery_is_known_also_where_nobody_has_noted_its_message(site: Site) -> None:
    ledger = site.ledger
    takeover = ledger.take_over(STAGE, "a", some(1), TTL)
    assert ledger.sent_as("a") == ""
    ledger.settle(STAGE, "a", takeover.token, [], where="worker", is_last=True)
    assert ledger.sent_as("a") is None


def test_what_somebody_else_wrote_there_is_as_nothing(site: Site) -> None:
    site.client.set(site.ledger.keys.asked(STAGE), "nonsense", ex=60)
    assert site.ledger.ask_sweep(STAGE, "a", TTL) == ("a", False)
