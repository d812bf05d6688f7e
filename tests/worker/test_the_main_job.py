"""The whole path on real parts: producer, broker, worker processes, Encord's protocol, results."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from celery.result import AsyncResult

from celery_agents import AgentResult, AgentTaskError, Outcome, Status, TaskCompletionResult
from celery_agents.sandbox import Fault

from .conftest import DEADLINE, Site, wait_until


@pytest.mark.tasks(2000)
def test_two_thousand_agent_tasks_on_two_processes(site: Site) -> None:
    """Each is moved once and has one outcome; the agent that raises once in each hundred costs exactly those."""
    site.start_worker("-c", "2")
    before = Counter(site.sandbox.calls)
    group = site.runner.enqueue("Pre-label")
    group.wait(timeout=DEADLINE)
    outcomes = list(group.outcomes)

    assert len(group) == 20
    assert len({each.task_uuid for each in outcomes}) == len(outcomes) == 2000
    assert group.counts == {Outcome.PROCEEDED: 1980, Outcome.FAILED: 20}
    assert {each.error.type for each in outcomes if each.error} == {"builtins.ValueError"}
    moves = site.sandbox.audit.moves()
    assert moves == {str(each.task_uuid): 1 for each in outcomes if each.outcome is Outcome.PROCEEDED}
    assert group.status is Status.PARTIAL

    calls = Counter(site.sandbox.calls) - before
    assert calls["tasks.actions"] == 20
    # One page of a listing each from the producer, one look at the stage each from the batches.
    assert calls["tasks.list"] <= 20 + 2000 // 50 + 2
    assert not calls.keys() - {"tasks.actions", "tasks.list", "projects.get", "ontologies.get"}


def test_a_stage_behind_a_stage(site: Site) -> None:
    site.start_worker("-c", "2")
    site.runner.enqueue("Pre-label").wait(timeout=DEADLINE)
    group = site.runner.enqueue("Route")
    group.wait(timeout=DEADLINE)
    moved = 20 - 1  # one in a hundred raises
    assert group.counts == {Outcome.PROCEEDED: moved}
    assert len(site.sandbox.audit.records("labels.save", accepted=True)) == moved


def test_trouble_at_random_costs_nothing_but_time(site: Site) -> None:
    """Every kind of passing trouble, at random, with every call: still each is moved once and saved before."""
    specs = site.specs()
    site.start_worker("-c", "2")
    site.sandbox.faults.add(
        Fault(call="tasks.*", rate=0.15, status=503),
        Fault(call="tasks.actions", rate=0.15, drop="after"),
        Fault(call="*", rate=0.05, status=429),
        Fault(call="label*", rate=0.1, drop="before"),
    )
    results = [site.module.pre_label.delay([spec]) for spec in specs]
    for result in results:
        AgentResult(result.id, site.app).wait(timeout=DEADLINE)
    outcomes = [outcome for result in results for outcome in AgentResult(result.id, site.app).outcomes]
    assert {str(each.task_uuid) for each in outcomes} == {json.loads(spec)["uuid"] for spec in specs}
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}


def test_celerys_own_result_is_the_completion_result(site: Site) -> None:
    site.start_worker("-c", "1")
    spec = site.specs()[0]
    sent = site.module.pre_label.delay(spec)
    result = TaskCompletionResult.model_validate_json(
        AsyncResult(sent.id, app=site.app).get(timeout=DEADLINE)
    )
    assert (result.success, str(result.task_uuid)) == (True, json.loads(spec)["uuid"])


def test_a_message_that_failed_raises_with_its_outcomes(site: Site) -> None:
    site.start_worker("-c", "1")
    sent = site.module.pre_label.delay(["{nonsense", "[]"])
    with pytest.raises(
        AgentTaskError, match=r"2 of 2 agent tasks failed; the first with .*SpecError"
    ) as raised:
        AsyncResult(sent.id, app=site.app).get(timeout=DEADLINE)
    assert [each.spec for each in raised.value.result.outcomes] == ["{nonsense", "[]"]
    assert AgentResult(sent.id, site.app).status is Status.FAILED


def test_what_passes_is_retried_under_the_same_id(site: Site) -> None:
    site.start_worker("-c", "1")
    specs = site.specs()
    site.sandbox.faults.add(Fault(call="tasks.actions", times=1, status=429, retry_after="3"))
    result = AgentResult(site.module.pre_label.delay(["{nonsense", *specs]).id, site.app)

    wait_until("it waits for its retry", lambda: result.status is Status.RETRYING)
    decided = result.outcomes
    assert {each.outcome for each in decided} == {Outcome.FAILED}  # the nonsense, and the one that raises
    assert result.progress is not None
    assert result.progress.done >= 2

    completed = result.get(timeout=DEADLINE)
    assert Counter(each.outcome for each in completed.outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 2}
    assert result.status is Status.PARTIAL
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}


def test_progress_is_told_while_it_runs(site: Site) -> None:
    site.start_worker("-c", "1", SECONDS_PER_TASK="0.2")
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)

    def is_under_way() -> bool:
        progress = result.progress
        return (
            result.state == "PROGRESS" and progress is not None and 0 < progress.done < progress.total == 20
        )

    wait_until("a part of it is through", is_under_way)
    assert result.status is Status.RUNNING
    assert result.get(timeout=DEADLINE).task_uuid
    assert result.progress is not None
    assert (result.progress.done, result.progress.failed) == (20, 1)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_on_other_pools(site: Site, pool: str) -> None:
    site.start_worker("-c", "2", "--pool", pool)
    group = site.runner.enqueue("Pre-label", batch_size=5)
    group.wait(timeout=DEADLINE)
    assert group.counts == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}
