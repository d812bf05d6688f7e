"""Outcomes that are alike: kept once, told as if each had been kept alone, found again and cleared away."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from celery_agents.ledger import Ledger, Retention, Settlement
from celery_agents.ledger.alike import MOST_ALIKE, NAME_LIMIT, Group, sort_out
from celery_agents.messages import Outcome, TaskError, TaskOutcome, TaskProgress
from tests.ledger.conftest import (
    STAGE,
    TTL,
    Site,
    failed,
    gone,
    proceeded,
    settle,
    some,
    until_the_next_millisecond,
)
from tests.ledger.order import assert_in_order

TITLES = ["Straße.jpg", 'a "b"\\n', "", "two\nlines", "a|b", "\x7f\x00", "\\", "{}"]
TOLD_OF = {"pathway": uuid4(), "pathway_name": 'to "review" \\ ü'}


def taken(ledger: Ledger, message_id: str, tasks: list[UUID]) -> int:
    return ledger.take_over(STAGE, message_id, tasks, TTL).token


def messages_of(ledger: Ledger, tasks: list[UUID]) -> dict[UUID, str]:
    return {each.task_uuid: each.message_id for each in ledger.outcomes_of(tasks).records}


def test_they_are_told_as_if_each_were_kept_alone(ledger: Ledger) -> None:
    outcomes = [proceeded(uuid4(), data_title=title, **TOLD_OF) for title in TITLES]
    tasks = [each.task_uuid for each in outcomes if each.task_uuid]
    settle(ledger, "a", taken(ledger, "a", tasks), outcomes)
    together = ledger.outcomes_of(tasks)
    settle(ledger, "b", taken(ledger, "b", tasks), [Settlement(each) for each in outcomes])
    alone = ledger.outcomes_of(tasks)
    for found, message_id in ((together, "a"), (alone, "b")):
        assert not found.complaints
        told = {each.task_uuid: each for each in found.records}
        assert [told[each].outcome for each in tasks] == outcomes
        assert {(each.message_id, each.attempts, each.where) for each in found.records} == {
            (message_id, 1, "worker@host")
        }


def test_a_uuid_is_found_where_it_is_one_and_not_where_the_text_looks_like_it(ledger: Ledger) -> None:
    """Between two others, of which one ends and one begins like it, or in a title."""
    tasks = [UUID(int=0xA), UUID(hex="a" * 32), UUID(hex="0" * 15 + "a" * 17), *some(32)]
    in_titles = uuid4()
    outcomes = [
        proceeded(task, data_hash=task, data_title=" " * number + in_titles.hex)
        for number, task in enumerate(tasks)
    ]
    settle(ledger, "a", taken(ledger, "a", tasks), outcomes)
    for found in (ledger.outcomes_of(tasks[:3]), ledger.outcomes_of_data(tasks[:3])):
        assert {each.task_uuid: each.outcome for each in found.records} == dict(
            zip(tasks, outcomes[:3], strict=False)
        )
    assert ledger.outcomes_of([in_titles]).records == ledger.outcomes_of_data([in_titles]).records == ()


def test_a_message_that_ends_alike_is_one_record_that_nothing_more_leads_to(site: Site) -> None:
    """Its own claims lead to it; what was settled before it needs entries of its own."""
    ledger, client = site.ledger, site.client
    first, second, third = some(3), some(3), some(3)
    ledger.claim(STAGE, {"a": [*first, *second, *third]}, TTL)
    token = taken(ledger, "a", [*first, *second, *third])
    settle(ledger, "a", token, [proceeded(each) for each in first], is_last=False)
    settle(ledger, "a", token, [*map(gone, second), *(proceeded(each) for each in third)])
    assert_in_order(site, STAGE)
    holders = client.hgetall(ledger.keys.claims(STAGE)["holders"])
    assert {holders[each.hex.encode()] for each in third} == {b"a"}
    assert len(holders) == 6
    assert len({holders[each.hex.encode()] for each in first} | {b"a"}) == 2
    assert ledger.who_holds(STAGE, [*first, *second, *third]) == {}
    assert len(ledger.outcomes_of([*first, *second, *third]).records) == 9


def test_what_is_not_alike_is_kept_alone() -> None:
    error = TaskError(type="builtins.ValueError", detail="no")
    progress = TaskProgress.model_validate({"current": 1, "total": 2, "at": "2026-01-01T00:00:00Z"})
    plain = {"outcome": Outcome.PROCEEDED, "data_hash": uuid4(), "data_title": "a"}
    different: list[dict[str, Any]] = [
        {"detail": "a sentence"},
        {"earlier_errors": (error,)},
        {"progress": progress},
        {"data_hash": None},
        {"data_title": None},
        {"data_title": "a" * (NAME_LIMIT + 1)},
        {"pathway_name": "a" * (NAME_LIMIT + 1)},
        {"outcome": Outcome.GONE},
        {"outcome": Outcome.FAILED, "error": error},
    ]
    for fields in different:
        twice = [TaskOutcome.model_validate({**plain, **fields, "task_uuid": each}) for each in some(2)]
        alone, groups = sort_out(twice)
        assert (len(alone), groups) == (2, []), fields
        assert {each.attempts for each in alone} == {2 if "earlier_errors" in fields else 1}
    unknown = [TaskOutcome.model_validate(plain)] * 2
    assert sort_out(unknown) == ([], [])


def test_the_largest_group_is_the_last_and_none_is_too_large() -> None:
    north = [proceeded(each, pathway=UUID(int=1)) for each in some(3)]
    south = [proceeded(each, pathway=UUID(int=2)) for each in some(2)]
    mixed = [north[0], south[0], north[1], south[1], north[2]]
    alone, groups = sort_out(mixed)
    assert (alone, [_tasks_of(group) for group in groups]) == ([], [_tasks_of(south), _tasks_of(north)])
    many = [proceeded(each) for each in some(MOST_ALIKE + 1)]
    alone, groups = sort_out(many)
    assert [each.outcome for each in alone] == many[-1:]
    assert [_tasks_of(group) for group in groups] == [_tasks_of(many[:-1])]


def _tasks_of(group: Group | list[TaskOutcome]) -> tuple[UUID | None, ...]:
    return group.task_uuids if isinstance(group, Group) else tuple(each.task_uuid for each in group)


def test_an_outcome_is_known_while_its_agent_task_is_at_the_stage_again(site: Site) -> None:
    ledger, tasks = site.ledger, some(3)
    settle(ledger, "a", taken(ledger, "a", tasks), [proceeded(each) for each in tasks])
    assert ledger.claim(STAGE, {"b": tasks}, TTL).granted == {"b": tuple(tasks)}
    assert messages_of(ledger, tasks) == dict.fromkeys(tasks, "a")
    token = taken(ledger, "b", tasks)
    settle(ledger, "b", token, [gone(tasks[0]), proceeded(tasks[1])], is_last=False)
    assert messages_of(ledger, tasks) == {tasks[0]: "a", tasks[1]: "b", tasks[2]: "a"}
    assert ledger.who_holds(STAGE, tasks).keys() == {tasks[2]}
    ledger.release(STAGE, "b")
    assert messages_of(ledger, tasks) == {tasks[0]: "a", tasks[1]: "b", tasks[2]: "a"}
    assert_in_order(site, STAGE)


def test_a_message_that_ended_and_is_delivered_again_knows_what_it_did(site: Site) -> None:
    """As where its worker died before it could acknowledge; and it may be given something new."""
    ledger, (new, *done) = site.ledger, some(4)
    token = taken(ledger, "a", done)
    settle(ledger, "a", token, [proceeded(each) for each in done])
    for last in range(2):
        again = ledger.take_over(STAGE, "a", [new, *done], TTL)
        assert again.granted == {new}
        assert again.settled.keys() == {*done}
        assert ledger.who_holds(STAGE, done) == {}
        assert ledger.hold(STAGE, "a", again.token, done, TTL).held == set()
        assert not ledger.note_running(STAGE, "a", again.token, done[0]).is_held
        assert_in_order(site, STAGE)
        settle(ledger, "a", again.token, [proceeded(new)] if last else [])
    assert ledger.release(STAGE, "a", done) == ledger.release_all(STAGE) == 0
    assert len(ledger.outcomes_of([new, *done]).records) == 4


def test_what_has_ended_is_held_by_nobody_although_its_delivery_goes_on(ledger: Ledger) -> None:
    tasks = some(2)
    token = taken(ledger, "a", tasks)
    settle(ledger, "a", token, [proceeded(each) for each in tasks], is_last=False)
    assert ledger.hold(STAGE, "a", token, tasks, TTL).held == set()
    assert not ledger.note_running(STAGE, "a", token, tasks[0]).is_held
    assert ledger.release(STAGE, "a", tasks) == 0


def test_a_part_of_a_group_that_others_decide_about_is_left_out(site: Site) -> None:
    ledger, tasks = site.ledger, some(5)
    token = taken(ledger, "a", tasks)
    ledger.claim(STAGE, {"b": tasks[1:3]}, TTL, force=True)
    outcomes = [proceeded(each, data_title=f"{each}") for each in tasks]
    assert settle(ledger, "a", token, outcomes) == {*tasks[1:3]}
    known = ledger.outcomes_of(tasks).records
    assert {each.outcome.task_uuid: each.outcome for each in known} == {
        each.task_uuid: each for each in (outcomes[0], *outcomes[3:])
    }
    assert_in_order(site, STAGE)


@pytest.mark.parametrize("others", [[], some(1)], ids=["all", "some"])
def test_successes_forgive_failures_and_crashes(ledger: Ledger, others: list[UUID]) -> None:
    tasks = some(2)
    for suspect in tasks:
        ledger.note_running(STAGE, "a", taken(ledger, "a", tasks), suspect)
    settle(ledger, "a", taken(ledger, "a", tasks), [failed(each) for each in tasks])
    again = ledger.take_over(STAGE, "b", [*tasks, *others], TTL)
    assert again.crashes == dict.fromkeys(tasks, 1)
    settle(ledger, "b", again.token, [proceeded(each) for each in tasks])
    assert ledger.failures().total == 0
    assert ledger.take_over(STAGE, "c", tasks, TTL).crashes == {}


def test_a_settlement_that_is_sent_twice_is_kept(site: Site) -> None:
    """As after an answer that was lost."""
    ledger, tasks = site.ledger, some(3)
    token = taken(ledger, "a", tasks)
    for _ in range(2):
        assert settle(ledger, "a", token, [proceeded(each) for each in tasks]) == set()
        assert messages_of(ledger, tasks) == dict.fromkeys(tasks, "a")
        assert_in_order(site, STAGE)


def test_old_groups_take_with_them_what_leads_to_them_and_nothing_else(site: Site) -> None:
    ledger, keys, old, new = site.ledger, site.ledger.keys, some(4), some(2)
    settle(ledger, "a", taken(ledger, "a", old), [proceeded(each) for each in old])
    (group,) = site.client.zrange(keys.outcome_times, 0, -1)
    site.client.zadd(keys.outcome_times, {group: 1})
    assert ledger.outcomes_of(old).records == ()
    ledger.claim(STAGE, {"b": old[:1]}, TTL)
    settle(ledger, "c", taken(ledger, "c", new), [proceeded(each) for each in new])
    left = {UUID(each.decode()) for each in site.client.hkeys(keys.claims(STAGE)["holders"])}
    assert left == {old[0], *new}
    assert ledger.who_holds(STAGE, old).keys() == {old[0]}
    assert_in_order(site, STAGE)


def test_groups_are_counted_by_their_agent_tasks_and_the_oldest_go_first(site: Site) -> None:
    site.ledger.retention = Retention(outcomes=40)
    ledger, keys = site.ledger, site.ledger.keys
    messages = {f"{number}": some(4) for number in range(13)}
    for message_id, tasks in messages.items():
        settle(ledger, message_id, taken(ledger, message_id, tasks), [proceeded(each) for each in tasks])
        until_the_next_millisecond(site.client)
        assert_in_order(site, STAGE)
    kept = [task for tasks in list(messages.values())[-10:] for task in tasks]
    assert messages_of(ledger, [task for tasks in messages.values() for task in tasks]).keys() == {*kept}
    assert site.client.hlen(keys.claims(STAGE)["holders"]) == 40


@pytest.mark.parametrize("kept", [60.0, 90 * 24 * 3600.0])
def test_records_and_what_leads_to_them_last_equally_long(site: Site, kept: float) -> None:
    ledger, keys, client, tasks = site.ledger, site.ledger.keys, site.client, some(2)
    ledger.retention = Retention(outcome_seconds=kept)
    settle(ledger, "a", taken(ledger, "a", tasks), [proceeded(each) for each in tasks])
    for ttl in (TTL, 48 * 3600.0):
        ledger.claim(STAGE, {f"{ttl}": some(1)}, ttl)
        left = [
            client.pttl(key) for key in (keys.claims(STAGE)["holders"], keys.outcomes, keys.outcome_times)
        ]
        assert min(left) >= 1_000 * max(kept, ttl + 24 * 3600)


def test_a_message_whose_outcomes_were_lost_may_have_its_agent_tasks_again(site: Site) -> None:
    ledger, tasks = site.ledger, some(2)
    settle(ledger, "a", taken(ledger, "a", tasks), [proceeded(each) for each in tasks])
    site.client.delete(ledger.keys.outcomes, ledger.keys.outcome_times)
    token = taken(ledger, "a", tasks)
    assert ledger.hold(STAGE, "a", token, tasks, TTL).held == {*tasks}
    assert ledger.in_flight(STAGE) == 2
    assert_in_order(site, STAGE)


def test_outcomes_of_data_units_are_searched_page_by_page_and_only_the_newest_is_told(site: Site) -> None:
    ledger, data_hash = site.ledger, uuid4()
    (task,) = some(1)
    for number in range(400):
        alike = [proceeded(each) for each in some(2)]
        if number % 200 == 7:
            alike.append(proceeded(task, data_hash=data_hash))
        token = taken(ledger, f"{number}", [task] if len(alike) == 3 else [])
        settle(ledger, f"{number}", token, alike)
    (record,) = ledger.outcomes_of_data([data_hash, uuid4()]).records
    assert (record.task_uuid, record.message_id) == (task, "207")
