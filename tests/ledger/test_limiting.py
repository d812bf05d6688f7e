"""Permits to call Encord: how far apart they are, by the server's own clock."""

from __future__ import annotations

from tests.ledger.conftest import Site

RATE, APART = 0.1, 10_000_000  #: calls a second, and microseconds from one to the next: no test takes so long
LONG = 100.0


def next_call(site: Site) -> int:
    return int(site.client.get(site.ledger.keys.next_call))


def test_all_who_ask_get_times_of_their_own(site: Site) -> None:
    ledgers = [site.ledger, site.another(prefix=site.ledger.keys.prefix)]
    first = site.ledger.permit(RATE, LONG)
    assert first == (True, 0.0)
    begin = next_call(site) - APART
    permits = [ledgers[number % 2].permit(RATE, LONG) for number in range(6)]
    assert all(each.is_granted for each in permits)
    assert next_call(site) == begin + 7 * APART
    assert [each.seconds // 10 for each in permits] == [0, 1, 2, 3, 4, 5]


def test_who_would_wait_too_long_is_refused_and_delays_nobody(site: Site) -> None:
    for _ in range(3):
        site.ledger.permit(RATE, LONG)
    before = next_call(site)
    refused = site.ledger.permit(RATE, longest=0.1)
    assert not refused.is_granted
    assert 20 < refused.seconds <= 30
    assert next_call(site) == before


def test_a_pause_is_not_saved_up(site: Site) -> None:
    seconds, _ = site.client.time()
    site.client.set(site.ledger.keys.next_call, (seconds - 60) * 1_000_000, ex=60)
    first, second = site.ledger.permit(RATE, LONG), site.ledger.permit(RATE, LONG)
    assert first.seconds == 0.0
    assert 5 < second.seconds <= 10
