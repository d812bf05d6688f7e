"""A batch is committed as it goes, and as far as it is when the worker is asked to stop."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.storage import StorageItem
from encord.workflow.stages.agent import AgentTask

from celery_agents import Outcome
from celery_agents.messages import TaskSpec
from celery_agents.sandbox import Fault

from .agents import FORWARD, proceed, save
from .conftest import Bench, StoppedWhen


def moves_seen_by_agents(bench: Bench, **options: Any) -> list[int]:
    """Execute the batch and return how many had been moved when each agent ran."""
    seen: list[int] = []

    def agent(task: AgentTask) -> str:
        seen.append(sum(bench.moves().values()))
        return FORWARD

    bench.execute(agent, **options)
    return seen


def test_commits_after_so_many_agent_tasks(bench: Bench) -> None:
    assert moves_seen_by_agents(bench, commit_every=4) == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert sum(bench.moves().values()) == 10


def test_commits_after_so_many_seconds(bench: Bench) -> None:
    passed = 0

    def second(task: AgentTask) -> str:
        nonlocal passed
        seen.append(sum(bench.moves().values()))
        passed += 1
        return FORWARD

    seen: list[int] = []
    bench.execute(second, commit_interval=3.0, clock=lambda: float(passed))
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
    assert sum(bench.moves().values()) == 10


def test_an_interval_of_nothing_commits_each(bench: Bench) -> None:
    assert moves_seen_by_agents(bench, commit_interval=0.0) == list(range(10))


def test_stopping_commits_what_is_answered_and_leaves_the_rest(bench: Bench) -> None:
    ran: list[AgentTask] = []

    def agent(task: AgentTask) -> str:
        ran.append(task)
        return FORWARD

    execution = bench.execute(agent, watch=StoppedWhen(lambda: len(ran) >= 3))
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 3}
    assert (len(ran), len(execution.again), execution.is_interrupted) == (3, 7, True)
    assert sum(bench.moves().values()) == 3
    assert (execution.countdown, execution.carry.attempt) == (0, 1)

    ended = bench.again(proceed, execution)
    assert Counter(each.outcome for each in ended.outcomes) == {Outcome.PROCEEDED: 10}
    assert Counter(bench.moves().values()) == {1: 10}


def test_stopping_before_the_first_costs_nothing(bench: Bench) -> None:
    calls = bench.calls_of(lambda: bench.execute(proceed, watch=StoppedWhen(lambda: True)))
    assert calls == {}


@pytest.mark.parametrize("call", ["labels.save", "tasks.actions"])
def test_being_interrupted_is_no_attempt_but_trouble_is(bench: Bench, call: str) -> None:
    bench.sandbox.faults.add(Fault(call=call, nth=(1, 2, 3) if call == "labels.save" else (1,), status=503))
    ran: list[object] = []

    def agent(task: AgentTask, label_row: LabelRowV2) -> object:
        ran.append(task)
        return save(task, label_row)

    execution = bench.execute(agent, watch=StoppedWhen(lambda: len(ran) >= 3))
    assert (len(execution.again), len(execution.carry.errors), execution.carry.attempt) == (10, 3, 2)
    ended = bench.again(agent, execution)
    assert Counter(each.outcome for each in ended.outcomes) == {Outcome.PROCEEDED: 10}
    assert {TaskSpec.decode(raw).uuid for raw in bench.specs} == {each.task_uuid for each in ended.outcomes}


def test_a_refused_bundle_of_any_kind_is_sent_again_in_its_halves(bench: Bench) -> None:
    """What one replay joins is nobody's but its own."""

    def describe(item: StorageItem, bundle: Bundle) -> str:
        item.update(description="seen", bundle=bundle)
        return FORWARD

    bench.sandbox.faults.add(Fault(call="storage.patch_bulk", status=400, times=1))
    execution = bench.execute(describe)
    assert {outcome.outcome for outcome in execution.outcomes} == {Outcome.PROCEEDED}
    assert bench.sandbox.calls["storage.patch_bulk"] == 3
    patched = [record.detail["item_uuid"] for record in bench.sandbox.audit.records("storage.patch_bulk")]
    assert sorted(patched) == sorted(set(patched))
    assert len(patched) == 10
