"""Who listens to a queue, and taking back a message that nobody has begun."""

from __future__ import annotations

from tests import servers
from tests.ledger.conftest import STAGE, TTL, Site, proceeded, settle, some


def test_a_listener_counts_until_it_says_no_more_or_nothing_for_too_long(site: Site) -> None:
    ledger = site.ledger
    assert ledger.listeners("agents") == 0
    ledger.listen("agents", "one@host", TTL)
    ledger.listen("agents", "one@host", TTL)
    ledger.listen("agents", "two@host", TTL)
    assert (ledger.listeners("agents"), ledger.listeners("other")) == (2, 0)
    ledger.stop_listening("agents", "one@host")
    assert ledger.listeners("agents") == 1
    ledger.listen("agents", "two@host", 0.001)
    servers.until(lambda: ledger.listeners("agents") == 0, "the one that is silent does not count")


def test_a_silent_listener_does_not_count_although_another_keeps_the_key_alive(site: Site) -> None:
    site.ledger.listen("agents", "one@host", 0.001)
    site.ledger.listen("agents", "two@host", TTL)
    servers.until(lambda: site.ledger.listeners("agents") == 1, "the silent one does not count")


def test_what_waits_in_its_queue_can_be_taken_back_and_then_is_not_begun(site: Site) -> None:
    ledger, tasks = site.ledger, some(3)
    ledger.claim(STAGE, {"a": tasks}, TTL)
    assert ledger.withdraw(STAGE, "a", TTL)
    assert ledger.claim(STAGE, {"b": tasks}, TTL).granted == {"b": tuple(tasks)}
    late = ledger.take_over(STAGE, "a", tasks, TTL)
    assert late.is_cancelled
    assert not late.granted


def test_what_a_worker_has_begun_is_not_taken_back(site: Site) -> None:
    ledger, tasks = site.ledger, some(1)
    ledger.claim(STAGE, {"a": tasks}, TTL)
    takeover = ledger.take_over(STAGE, "a", tasks, TTL)
    assert not ledger.withdraw(STAGE, "a", TTL)
    assert not ledger.hold(STAGE, "a", takeover.token, tasks, TTL).is_cancelled


def test_neither_is_what_has_ended_nor_what_nobody_knows(site: Site) -> None:
    ledger, tasks = site.ledger, some(1)
    ledger.claim(STAGE, {"a": tasks}, TTL)
    settle(ledger, "a", ledger.take_over(STAGE, "a", tasks, TTL).token, [proceeded(tasks[0])])
    assert not ledger.withdraw(STAGE, "a", TTL)
    assert not ledger.withdraw(STAGE, "unheard of", TTL)
