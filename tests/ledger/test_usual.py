"""The short way of what usually happens, through scripts that also know another: it tells and keeps as much."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from uuid import UUID

import pytest

from celery_agents.ledger import Ledger, Retention
from celery_agents.ledger.replies import Takeover
from tests.ledger.conftest import STAGE, TTL, Site, failed, proceeded, settle, some
from tests.ledger.order import assert_in_order

DAY = 24 * 3600.0


def claimed(ledger: Ledger, tasks: list[UUID], message_id: str = "a") -> Takeover:
    """Deliver a message with what was claimed for it."""
    ledger.claim(STAGE, {message_id: tasks}, TTL)
    return ledger.take_over(STAGE, message_id, tasks, TTL)


def test_a_delivery_with_nothing_to_tell_is_like_one_that_is_asked_about(ledger: Ledger) -> None:
    first, second = some(3), some(3)
    short = claimed(ledger, first)
    long = ledger.take_over(STAGE, "b", second, TTL)
    assert short.granted == {*first}
    assert long.granted == {*second}
    assert replace(short, token=0, wanted=()) == replace(long, token=0, wanted=())
    assert long.token > short.token


def test_a_pause_is_told(ledger: Ledger) -> None:
    ledger.pause(STAGE, 300)
    assert claimed(ledger, some(2)).paused_for > 200


def test_a_cancelled_message_is_told_so(ledger: Ledger) -> None:
    ledger.cancel(["a"], TTL)
    assert claimed(ledger, some(2)).is_cancelled
    assert not claimed(ledger, some(2), "b").is_cancelled


def test_crashes_are_told(ledger: Ledger) -> None:
    tasks = some(2)
    token = ledger.take_over(STAGE, "a", tasks, TTL).token
    ledger.note_running(STAGE, "a", token, tasks[1])
    ledger.take_over(STAGE, "a", tasks, TTL)
    ledger.release(STAGE, "a")
    assert claimed(ledger, tasks, "b").crashes == {tasks[1]: 1}


def test_a_redelivery_and_a_death_are_told(ledger: Ledger) -> None:
    tasks = some(2)
    first = claimed(ledger, tasks)
    ledger.note_death("a", "SIGKILL")
    again = ledger.take_over(STAGE, "a", tasks, TTL)
    assert (again.deliveries, again.death) == (2, "SIGKILL")
    assert again.token > first.token
    assert settle(ledger, "a", first.token, [proceeded(each) for each in tasks]) == {*tasks}
    assert settle(ledger, "a", again.token, [proceeded(each) for each in tasks]) == set()


def test_claims_are_renewed_for_as_long_as_was_asked_for(site: Site) -> None:
    tasks, ledger = some(2), site.ledger
    ledger.claim(STAGE, {"a": tasks}, 60)
    ledger.take_over(STAGE, "a", tasks, 10 * DAY)
    keys = ledger.keys.claims(STAGE)
    for name in ("holders", "running", "sizes", "batches"):
        assert site.client.ttl(keys[name]) > 11 * DAY, name
    ledger.claim(STAGE, {"b": some(1)}, 60)
    ledger.take_over(STAGE, "b", some(1), TTL)
    assert ledger.who_holds(STAGE, tasks)[tasks[0]].seconds_left > 9 * DAY


def test_what_was_sent_with_one_twice_counts_it_once(site: Site) -> None:
    ledger, (first, second) = site.ledger, some(2)
    taken = ledger.take_over(STAGE, "a", [first, second, first], TTL)
    assert taken.granted == {first, second}
    assert_in_order(site, STAGE)
    settle(ledger, "a", taken.token, [proceeded(first), proceeded(second)])
    assert ledger.in_flight(STAGE) == 0


def test_a_message_whose_first_claim_was_given_while_it_ran_leaves_nothing(site: Site) -> None:
    ledger, tasks = site.ledger, some(2)
    token = ledger.take_over(STAGE, "a", [], TTL).token
    ledger.claim(STAGE, {"a": tasks}, TTL)
    settle(ledger, "a", token, [proceeded(each) for each in tasks])
    assert ledger.in_flight(STAGE) == 0
    assert_in_order(site, STAGE)


def test_a_success_of_all_clears_older_failures(ledger: Ledger) -> None:
    tasks = some(2)
    settle(ledger, "a", claimed(ledger, tasks).token, [failed(each) for each in tasks])
    assert len(ledger.failures().records) == 2
    settle(ledger, "b", claimed(ledger, tasks, "b").token, [proceeded(each) for each in tasks])
    assert not ledger.failures().records


def test_what_was_claimed_in_part_is_known_as_just_that(site: Site) -> None:
    ledger, tasks = site.ledger, some(3)
    ledger.claim(STAGE, {"a": tasks[:1]}, TTL)
    ledger.claim(STAGE, {"b": tasks}, TTL)
    listed = site.client.hget(ledger.keys.claims(STAGE)["batches"], "b")
    assert listed.decode() == "".join(each.hex for each in tasks[1:])
    assert ledger.take_over(STAGE, "b", tasks[1:], TTL).granted == {*tasks[1:]}


def test_a_message_that_has_settled_something_may_claim_what_nobody_had(site: Site) -> None:
    ledger, settled, more = site.ledger, some(2), some(2)
    settle_all(ledger, "a", settled)
    assert ledger.claim(STAGE, {"a": more}, TTL).granted == {"a": tuple(more)}
    assert_in_order(site, STAGE)
    assert ledger.who_holds(STAGE, [*settled, *more]).keys() == {*more}
    assert outcomes_of(ledger, [settled, more]) == {*settled}


def test_new_messages_and_others_are_claimed_for_in_one_call(site: Site) -> None:
    ledger, (first, second, third, fourth) = site.ledger, some(4)
    ledger.claim(STAGE, {"a": [first]}, TTL)
    batches = {"b": [second], "empty": [], "a": [third], "c": [first, second, fourth]}
    claimed = ledger.claim(STAGE, batches, TTL)
    assert claimed.granted == {"b": (second,), "empty": (), "a": (third,), "c": (fourth,)}
    assert claimed.held_by_others == {first: "a", second: "b"}
    assert ledger.in_flight(STAGE) == 4
    assert_in_order(site, STAGE)


def test_all_that_was_claimed_may_be_settled_with_more(site: Site) -> None:
    ledger, tasks, others, another = site.ledger, some(2), some(3), some(1)[0]
    token = claimed(ledger, tasks).token
    south = [proceeded(each, pathway=UUID(int=2)) for each in others]
    north = [proceeded(each) for each in tasks]
    assert settle(ledger, "a", token, [*north, *south, failed(another)]) == set()
    assert outcomes_of(ledger, [tasks, others, [another]]) == {*tasks, *others, another}
    assert ledger.in_flight(STAGE) == 0
    assert_in_order(site, STAGE)


@pytest.mark.parametrize("makes_room", ["number", "age"])
def test_older_outcomes_make_room(site: Site, makes_room: str) -> None:
    ledger = site.ledger
    ledger.retention = Retention(outcomes=20)  # of which two may be kept alike
    batches = [some(2) for _ in range(10)]
    for number, tasks in enumerate(batches):
        settle_all(ledger, f"old-{number}", tasks)
    assert len(outcomes_of(ledger, batches)) == 20
    if makes_room == "age":
        ledger.retention = Retention(outcomes=200)
        oldest = {f"old-0 {STAGE.hex}": 1.0}
        assert site.client.zadd(ledger.keys.outcome_times, oldest, xx=True, ch=True) == 1
    new = some(2)
    settle_all(ledger, "new", new)
    assert outcomes_of(ledger, [*batches, new]) == {each for tasks in [*batches[1:], new] for each in tasks}
    assert site.client.zcard(ledger.keys.outcome_times) == 10
    assert site.client.hlen(ledger.keys.claims(STAGE)["holders"]) == 20
    assert_in_order(site, STAGE)


def test_a_lower_number_of_outcomes_makes_many_go_at_once(site: Site) -> None:
    ledger = site.ledger
    batches = [some(2) for _ in range(30)]
    for number, tasks in enumerate(batches):
        settle_all(ledger, f"old-{number}", tasks)
    ledger.retention = Retention(outcomes=20)
    new = some(2)
    settle_all(ledger, "new", new)
    kept = [*batches[-9:], new]
    assert outcomes_of(ledger, [*batches, new]) == {each for tasks in kept for each in tasks}
    assert_in_order(site, STAGE)


def test_outcomes_that_were_lost_are_not_counted_for_long(site: Site) -> None:
    ledger, (first, second, third) = site.ledger, (some(2) for _ in range(3))
    for number in range(30):
        settle_all(ledger, f"old-{number}", some(2))
    site.client.delete(ledger.keys.outcome_times)
    ledger.retention = Retention(outcomes=20)
    for number, tasks in enumerate([first, second, third]):
        settle_all(ledger, f"new-{number}", tasks)
    assert outcomes_of(ledger, [first, second, third]) >= {*second, *third}
    assert ledger.in_flight(STAGE) == 0


def settle_all(ledger: Ledger, message_id: str, tasks: list[UUID]) -> None:
    token = claimed(ledger, tasks, message_id).token
    assert settle(ledger, message_id, token, [proceeded(each) for each in tasks]) == set()


def outcomes_of(ledger: Ledger, batches: list[list[UUID]]) -> set[UUID]:
    return {each.task_uuid for each in ledger.outcomes_of([*chain(*batches)]).records}
