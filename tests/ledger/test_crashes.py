"""Deliveries that die: which agent task was it, and how often."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from celery_agents.ledger import Ledger, Settlement
from celery_agents.messages import TaskOutcome
from tests.ledger.conftest import STAGE, TTL, Site, failed, gone, proceeded, settle, some


def test_the_first_crash_of_a_message_is_nobodys(ledger: Ledger) -> None:
    tasks = some(2)
    ledger.take_over(STAGE, "a", tasks, TTL)
    second = ledger.take_over(STAGE, "a", tasks, TTL)
    assert second.is_redelivered
    assert (second.suspect, second.crashes) == (None, {})


def test_what_was_noted_as_running_is_the_suspect_of_the_next_delivery_and_crashes_are_counted(
    ledger: Ledger,
) -> None:
    tasks = some(3)
    for crash in range(1, 4):
        token = ledger.take_over(STAGE, "a", tasks, TTL).token
        for task in tasks[:2]:
            assert ledger.note_running(STAGE, "a", token, task).is_held
        takeover = ledger.take_over(STAGE, "a", tasks, TTL)
        assert (takeover.suspect, takeover.crashes) == (tasks[1], {tasks[1]: crash})
        assert takeover.deliveries == 2 * crash


def test_a_suspect_is_known_to_other_messages_too(ledger: Ledger) -> None:
    tasks = some(1)
    _crash(ledger, "a", tasks)
    ledger.release(STAGE, "a", tasks)
    other = ledger.take_over(STAGE, "b", tasks, TTL)
    assert (other.suspect, other.crashes, other.deliveries) == (None, {tasks[0]: 1}, 1)


@pytest.mark.parametrize("ending", ["settled", "between"])
def test_a_crash_between_agent_tasks_is_nobodys(ledger: Ledger, ending: str) -> None:
    tasks = some(2)
    token = ledger.take_over(STAGE, "a", tasks, TTL).token
    ledger.note_running(STAGE, "a", token, tasks[0])
    if ending == "settled":
        settle(ledger, "a", token, [proceeded(tasks[0])], is_last=False)
    else:
        ledger.note_running(STAGE, "a", token, None)
    assert ledger.take_over(STAGE, "a", tasks, TTL).suspect is None


def test_a_delivery_that_ended_is_not_followed_by_a_redelivery(ledger: Ledger) -> None:
    tasks = some(2)
    token = ledger.take_over(STAGE, "a", tasks, TTL).token
    settle(ledger, "a", token, [], is_last=True)  # put back, or to be retried
    again = ledger.take_over(STAGE, "a", tasks, TTL)
    assert again.deliveries == 1
    assert again.granted == {*tasks}


def test_the_end_of_an_old_delivery_does_not_end_the_new_one(ledger: Ledger) -> None:
    tasks = some(1)
    old = ledger.take_over(STAGE, "a", tasks, TTL).token
    new = ledger.take_over(STAGE, "a", tasks, TTL).token
    ledger.note_running(STAGE, "a", new, tasks[0])
    settle(ledger, "a", old, [], is_last=True)
    assert ledger.take_over(STAGE, "a", tasks, TTL).suspect == tasks[0]


def test_what_an_earlier_delivery_settled_is_told_and_not_granted_again(ledger: Ledger) -> None:
    done, broken, left = some(3)
    token = ledger.take_over(STAGE, "a", [done, broken, left], TTL).token
    settle(ledger, "a", token, [proceeded(done), failed(broken)], is_last=False)

    again = ledger.take_over(STAGE, "a", [done, broken, left], TTL)

    assert again.granted == {left}
    assert {each: record.outcome.outcome for each, record in again.settled.items()} == {
        done: "PROCEEDED",
        broken: "FAILED",
    }
    assert ledger.take_over(STAGE, "b", [done], TTL).granted == {done}


@pytest.mark.parametrize("outcome", [proceeded, gone])
def test_success_forgives_crashes(
    ledger: Ledger, outcome: Callable[[UUID], TaskOutcome | Settlement]
) -> None:
    tasks = some(1)
    token = _crash(ledger, "a", tasks)
    settle(ledger, "a", token, [outcome(tasks[0])])
    assert ledger.take_over(STAGE, "b", tasks, TTL).crashes == {}


def test_failure_does_not_forgive_crashes_but_discarding_it_does(ledger: Ledger) -> None:
    tasks = some(1)
    token = _crash(ledger, "a", tasks)
    settle(ledger, "a", token, [failed(tasks[0])])
    assert ledger.take_over(STAGE, "b", tasks, TTL).crashes == {tasks[0]: 1}
    ledger.discard(tasks)
    assert ledger.take_over(STAGE, "b", tasks, TTL).crashes == {}


def test_old_crashes_are_forgiven(site: Site) -> None:
    tasks = some(2)
    _crash(site.ledger, "a", tasks[:1])
    (name,) = site.client.zrange(site.ledger.keys.crashes, 0, -1)
    site.client.zadd(site.ledger.keys.crashes, {name: 1_700_000_000_000_007})  # seven, until November 2023
    assert site.ledger.take_over(STAGE, "b", tasks[:1], TTL).crashes == {}
    _crash(site.ledger, "c", tasks[1:])
    assert site.client.zcard(site.ledger.keys.crashes) == 1


def _crash(ledger: Ledger, message_id: str, tasks: list[UUID]) -> int:
    """Let a delivery die on the first of *tasks*; return the token of the next."""
    token = ledger.take_over(STAGE, message_id, tasks, TTL).token
    ledger.note_running(STAGE, message_id, token, tasks[0])
    return ledger.take_over(STAGE, message_id, tasks, TTL).token
