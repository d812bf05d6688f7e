"""What became of agent tasks: outcomes, failures, their limits, and records that are not ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from celery_agents.ledger import Ledger, Retention, Settlement
from celery_agents.ledger.records import RECORD_LIMIT
from celery_agents.messages import Outcome, TaskError, TaskOutcome
from tests.ledger.conftest import (
    OTHER_STAGE,
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


def test_an_outcome_is_found_by_agent_task_and_by_data_hash(ledger: Ledger) -> None:
    (task, data_hash), pathway = some(2), uuid4()
    token = ledger.take_over(STAGE, "a", [task], TTL).token
    outcome = proceeded(task, data_hash=data_hash, data_title="Straße", pathway=pathway, pathway_name="done")
    before = datetime.now(UTC) - timedelta(minutes=1)

    settle(ledger, "a", token, [outcome])

    (record,) = ledger.outcomes_of([task]).records
    assert (record.task_uuid, record.stage_uuid, record.message_id) == (task, STAGE, "a")
    assert (record.where, record.attempts, record.spec) == ("worker@host", 1, None)
    assert record.outcome == outcome
    assert before < record.at < datetime.now(UTC) + timedelta(minutes=1)
    assert ledger.outcomes_of_data([data_hash]).records == (record,)
    assert ledger.outcomes_of([data_hash]).records == ledger.outcomes_of_data([task]).records == ()


def test_outcomes_of_both_stages_are_found_the_newest_first(ledger: Ledger) -> None:
    task, data_hash = some(2)
    for message_id, stage in (("a", STAGE), ("b", OTHER_STAGE)):
        token = ledger.take_over(stage, message_id, [task], TTL).token
        settle(ledger, message_id, token, [proceeded(task, data_hash=data_hash)], stage=stage)
    for found in (ledger.outcomes_of([task]), ledger.outcomes_of_data([data_hash])):
        assert {each.stage_uuid for each in found.records} == {STAGE, OTHER_STAGE}
        assert [each.at for each in found.records] == sorted(
            (each.at for each in found.records), reverse=True
        )


def test_an_outcome_is_recorded_although_nothing_was_taken_over(ledger: Ledger) -> None:
    (task,) = some(1)
    ledger.claim(STAGE, {"a": [task]}, TTL)
    assert settle(ledger, "a", 0, [proceeded(task)]) == set()
    assert len(ledger.outcomes_of([task]).records) == 1
    assert ledger.in_flight(STAGE) == 0


def test_who_comes_second_does_not_hide_how_it_went(ledger: Ledger) -> None:
    (task,) = some(1)
    for message_id, outcome in (("a", proceeded(task)), ("b", gone(task))):
        token = ledger.take_over(STAGE, message_id, [task], TTL).token
        settle(ledger, message_id, token, [outcome])
    (record,) = ledger.outcomes_of([task]).records
    assert (record.outcome.outcome, record.message_id) == ("PROCEEDED", "a")
    assert ledger.in_flight(STAGE) == 0


def test_a_failure_is_kept_with_its_spec_until_the_agent_task_succeeds(ledger: Ledger) -> None:
    (task,) = some(1)
    settle(ledger, "a", ledger.take_over(STAGE, "a", [task], TTL).token, [failed(task, spec='{"uuid": "…"}')])
    (record,) = ledger.failures_of([task]).records
    assert (record.spec, record.attempts, record.message_id) == ('{"uuid": "…"}', 2, "a")
    assert record.outcome.error is not None
    assert record.outcome.error.traceback == "Traceback …"
    assert ledger.failures().records == (record,)

    settle(ledger, "b", ledger.take_over(STAGE, "b", [task], TTL).token, [proceeded(task)])
    assert ledger.failures_of([task]).records == ()
    assert ledger.failures().total == 0


def test_a_failure_without_a_spec_is_an_outcome_only(ledger: Ledger) -> None:
    (task,) = some(1)
    settle(ledger, "a", 0, [failed(task, spec=None)])
    assert ledger.failures().total == 0
    assert len(ledger.outcomes_of([task]).records) == 1


def test_an_outcome_of_no_known_agent_task_is_left_out(ledger: Ledger) -> None:
    assert settle(ledger, "a", 0, [Settlement(TaskOutcome(outcome=Outcome.FAILED))]) == set()
    assert ledger.failures().total == 0


def test_failures_are_listed_by_stage_error_and_time_page_by_page(site: Site) -> None:
    ledger, tasks = site.ledger, some(5)
    kinds = ["builtins.ValueError", "builtins.KeyError", "lib.errors.ValueError", "lib.MyValueError"]
    settle(ledger, "a", 0, [failed(task, kind) for task, kind in zip(tasks, kinds, strict=False)])
    settle(ledger, "b", 0, [failed(tasks[4])], stage=OTHER_STAGE)
    name = f"{tasks[1].hex}/{STAGE.hex}"
    site.client.zincrby(ledger.keys.failure_times, -3_600_000, name)

    def found(**wanted: Any) -> set[UUID]:
        page = ledger.failures(**wanted)
        assert page.total == len(page.records)
        return {each.task_uuid for each in page.records}

    assert found() == {*tasks}
    assert found(stage_uuid=OTHER_STAGE) == {tasks[4]}
    assert found(error_type="ValueError") == {tasks[0], tasks[2], tasks[4]}
    assert found(error_type="builtins.ValueError", stage_uuid=STAGE) == {tasks[0]}
    assert found(since=datetime.now(UTC) - timedelta(minutes=30)) == {*tasks} - {tasks[1]}
    pages = [ledger.failures(limit=2, skip=skip) for skip in (0, 2, 4)]
    assert [len(page.records) for page in pages] == [2, 2, 1]
    assert {each.task_uuid for page in pages for each in page.records} == {*tasks}
    assert {page.total for page in pages} == {5}


def test_discarded_failures_are_gone_and_counted(ledger: Ledger) -> None:
    tasks = some(3)
    settle(ledger, "a", 0, [failed(each) for each in tasks])
    assert ledger.discard([*tasks[:2], uuid4()]) == 2
    assert [each.task_uuid for each in ledger.failures().records] == [tasks[2]]


def test_the_oldest_go_first_when_there_are_too_many(small: Ledger, site: Site) -> None:
    tasks = [UUID(int=number) for number in range(1, 6)]
    for task in tasks:
        settle(small, str(task), 0, [failed(task), proceeded(uuid4(), data_hash=task)])
        until_the_next_millisecond(site.client)
    assert len(small.outcomes_of(tasks).records) < 3
    assert small.failures().total == 2
    assert {each.outcome.data_hash for each in small.outcomes_of_data(tasks).records} <= {*tasks[3:]}


def test_the_number_of_everything_that_is_kept_is_bounded(site: Site) -> None:
    site.ledger.retention = Retention(outcomes=100, failures=50)
    tasks: list[UUID] = []
    for message in range(20):
        batch = some(40)
        tasks += batch
        token = site.ledger.take_over(STAGE, f"{message}", batch, TTL).token
        settle(
            site.ledger,
            f"{message}",
            token,
            [failed(batch[0]), *(proceeded(each, data_hash=each) for each in batch[1:])],
        )
    keys, client = site.ledger.keys, site.client
    others = [key for name, key in keys.claims(STAGE).items() if name != "holders"]
    assert 50 < len(site.ledger.outcomes_of(tasks).records) <= 100
    assert client.hlen(keys.claims(STAGE)["holders"]) <= 100
    assert client.hlen(keys.outcomes) - 1 == client.zcard(keys.outcome_times) <= 100
    assert client.hlen(keys.failures) == client.zcard(keys.failure_times) == 20
    assert client.exists(*others, keys.message("0"), keys.message("19")) == 0


def test_what_is_too_old_is_not_found_and_is_cleared_away(site: Site) -> None:
    old, new = some(2)
    ledger, keys = site.ledger, site.ledger.keys
    settle(ledger, "a", 0, [failed(old)])
    for key in (keys.outcome_times, keys.failure_times):
        site.client.zadd(key, {f"{old.hex}/{STAGE.hex}": 1})
    assert ledger.outcomes_of([old]).records == ledger.failures_of([old]).records == ()
    assert ledger.failures().total == 0
    settle(ledger, "b", 0, [failed(new)])
    assert site.client.hlen(keys.outcomes) == site.client.hlen(keys.failures) == 1


def test_long_errors_are_kept_with_less(ledger: Ledger) -> None:
    (task,) = some(1)
    error = TaskError(type="builtins.ValueError", detail="é" * 2_000, traceback="t" * 6_000)
    outcome = TaskOutcome(outcome=Outcome.FAILED, task_uuid=task, error=error, earlier_errors=(error,) * 30)
    settle(ledger, "a", 0, [Settlement(outcome, spec="{}")])
    (record,) = ledger.failures_of([task]).records
    assert record.outcome.error == error
    assert [each.traceback for each in record.outcome.earlier_errors] == [None] * 4
    assert record.spec == "{}"


@pytest.mark.parametrize("field", ["detail", "data_title", "spec", "pathway_name"])
def test_what_is_too_long_is_left_out_with_a_sentence(site: Site, field: str) -> None:
    (task,) = some(1)
    outcome = TaskOutcome.model_validate({"outcome": "FAILED", "task_uuid": task, field: "ü" * 100_000})
    settle(site.ledger, "a", 0, [Settlement(outcome, spec='{"a": "' + "\\u0001" * 100_000 + '"}')])
    (record,) = site.ledger.failures_of([task]).records
    assert record.outcome.detail == "More is known, but it was too long for the ledger."
    assert record.spec is None
    assert all(len(each) < RECORD_LIMIT for each in site.client.hvals(site.ledger.keys.failures))


HEAD = "1 1000 PROCEEDED - a -\n"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "it is too long"),
        ("x" * (RECORD_LIMIT + 1), "it is too long"),
        ("{}", "its first line is not one of a record"),
        (HEAD + "{", "its JSON: Invalid JSON"),
        (HEAD + '{"outcome": "PROCEEDED"}', "outcome: Input should be"),
        (HEAD + '{"outcome": {"pathway": "north"}}', "pathway: Input should be"),
        (HEAD.replace("PROCEEDED", "MAYBE") + '{"outcome": {}}', "outcome: Input should be"),
        (HEAD.replace("1000", "9" * 15) + '{"outcome": {"outcome": "HELD"}}', "out of range"),
        (b"\xff\xfe", "its first line is not one of a record"),
    ],
)
def test_a_record_that_is_not_ours_is_left_out_with_a_sentence(
    site: Site, value: str | bytes, reason: str
) -> None:
    good, bad = some(2)
    ledger = site.ledger
    settle(ledger, "b", 0, [failed(good), failed(bad)])
    name = f"{bad.hex}/{STAGE.hex}"
    for key in (ledger.keys.outcomes, ledger.keys.failures):
        site.client.hset(key, name, value)
    for found in (ledger.outcomes_of([good, bad]), ledger.failures_of([good, bad]), ledger.failures()):
        assert [each.task_uuid for each in found.records] == [good]
        (complaint,) = found.complaints
        assert complaint.startswith(
            f"The ledger's record of agent task {bad} at stage {STAGE} cannot be read: "
        )
        assert reason in complaint
        assert len(complaint) < 500
    # It is in nobody's way.
    token = ledger.take_over(STAGE, "c", [bad], TTL).token
    assert settle(ledger, "c", token, [proceeded(bad)]) == set()
    assert len(ledger.outcomes_of([bad]).records) == 1


def test_a_claim_that_is_not_ours_is_free(site: Site) -> None:
    tasks = some(4)
    garbage = ["", "no message", "a" * 5_000, b"\xff 1"]
    site.ledger.claim(STAGE, {"a": tasks}, TTL)
    for task, value in zip(tasks, garbage, strict=True):
        site.client.hset(site.ledger.keys.claims(STAGE)["holders"], task.hex, value)
    assert site.ledger.who_holds(STAGE, tasks) == {}
    takeover = site.ledger.take_over(STAGE, "b", tasks, TTL)
    assert takeover.granted == {*tasks}
    assert site.ledger.hold(STAGE, "b", takeover.token, tasks, TTL).held == {*tasks}
