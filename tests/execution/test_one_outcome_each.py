"""Whatever happens to one agent task of a batch costs exactly that one."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import pytest
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask, AgentTaskStatus

from celery_agents import Depends, Outcome, TaskAgentReturnStruct
from celery_agents.messages import TaskOutcome, TaskSpec

from .agents import FORWARD, proceed, save
from .conftest import Bench


def first(bench: Bench) -> TaskSpec:
    return TaskSpec.decode(bench.specs[0])


def test_all_proceed(bench: Bench) -> None:
    execution = bench.execute(proceed)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert {each.pathway_name for each in execution.outcomes} == {FORWARD}
    assert [str(each.task_uuid) for each in execution.outcomes] == [
        json.loads(spec)["uuid"] for spec in bench.specs
    ]
    assert Counter(bench.moves().values()) == {1: 10}
    assert {bench.where(each) for each in execution.outcomes} == {"Route"}


def assert_only_the_first_failed(bench: Bench, outcomes: list[Any], step: str, detail: str) -> None:
    failed, *others = outcomes
    assert (failed.outcome, failed.error.step) == (Outcome.FAILED, step)
    assert detail in failed.error.detail
    assert {each.outcome for each in others} == {Outcome.PROCEEDED}
    assert bench.where(failed) == "Pre-label"
    assert {bench.where(each) for each in others} == {"Route"}
    assert sum(bench.moves().values()) == 9


def test_an_agent_that_raises(bench: Bench) -> None:
    guilty = first(bench).uuid

    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
        if task.uuid == guilty:
            raise ValueError("no such weights")
        return save(task, label_row)

    outcomes = bench.execute(agent).outcomes
    assert_only_the_first_failed(bench, outcomes, "agent", "no such weights")
    assert outcomes[0].error is not None
    assert outcomes[0].error.type == "builtins.ValueError"
    assert "in agent" in (outcomes[0].error.traceback or "")
    assert len(bench.sandbox.audit.records("labels.save", accepted=True)) == 9


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (42, "The agent returned 42; return a pathway's name or UUID"),
        ("labeled", "has no pathway 'labeled'. Its pathways are: 'labelled'"),
        ("", "has no pathway ''"),
        (["labelled"], "The agent returned ['labelled']"),
        (TaskAgentReturnStruct(pathway="labelled", label_row_priority=7), "a number from 0.0 to 1.0, not 7"),
    ],
    ids=repr,
)
def test_an_answer_that_is_none(bench: Bench, answer: Any, detail: str) -> None:
    guilty = first(bench).uuid

    def agent(task: AgentTask) -> Any:
        return answer if task.uuid == guilty else FORWARD

    assert_only_the_first_failed(bench, bench.execute(agent).outcomes, "answer", detail)


def test_labels_that_encord_refuses(bench: Bench) -> None:
    """One row of a bundled save is refused, which refuses them all: the guilty one is found, the others are saved."""
    guilty = first(bench).uuid

    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
        if task.uuid == guilty:
            bench.project.labels.remove(str(task.data_hash))  # somebody deletes the labels meanwhile
        return save(task, label_row)

    outcomes = bench.execute(agent).outcomes
    assert_only_the_first_failed(bench, outcomes, "save", "no label row")
    assert len(bench.sandbox.audit.records("labels.save", accepted=True)) == 9


def test_labels_that_were_not_read(bench: Bench) -> None:
    """``save`` refuses a label row whose labels were never read, before anything is sent."""
    guilty = first(bench)

    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
        if task.uuid == guilty.uuid:
            label_row = bench.gateway.label_rows([guilty], {})[guilty.uuid]
        return TaskAgentReturnStruct(FORWARD, label_row)

    assert_only_the_first_failed(bench, bench.execute(agent).outcomes, "save", "initialise_labels")


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ("{", "Not a task spec"),
        ("17", "Not a task spec"),
        (17, "JSON text or a JSON object"),
        (None, "JSON text or a JSON object"),
        ({"uuid": "x"}, "field 'uuid'"),
        ({"uuid": "5d1f6f0e-6c3b-4b52-8c7f-0d4f5b2f3d11"}, "field 'data_hash': Field required"),
    ],
    ids=repr,
)
def test_a_spec_that_is_none(bench: Bench, spec: object, detail: str) -> None:
    outcomes = bench.execute(proceed, [spec, *bench.specs]).outcomes
    assert (outcomes[0].outcome, outcomes[0].task_uuid) == (Outcome.FAILED, None)
    assert outcomes[0].error is not None
    assert detail in outcomes[0].error.detail
    assert outcomes[0].spec == (spec if isinstance(spec, str) else json.dumps(spec))
    assert Counter(each.outcome for each in outcomes[1:]) == {Outcome.PROCEEDED: 10}


@pytest.mark.parametrize(
    ("field", "detail"), [("project_hash", "is for project"), ("stage_uuid", "is for stage")]
)
def test_a_spec_for_somebody_else(bench: Bench, field: str, detail: str) -> None:
    stranger = json.loads(bench.specs[0]) | {field: "5d1f6f0e-6c3b-4b52-8c7f-0d4f5b2f3d11"}
    outcomes = bench.execute(proceed, [stranger, *bench.specs[1:]]).outcomes
    assert_only_the_first_failed(bench, outcomes, "spec", detail)


@pytest.mark.parametrize("status", ["ESCALATED", None])
@pytest.mark.parametrize("with_labels", [False, True])
def test_a_status_that_the_sdk_does_not_know_stops_nobody(
    bench: Bench, status: str | None, with_labels: bool
) -> None:
    """The oldest SDK has no name for such a one. With labels the spec tells it, without them Encord does."""
    tasks = bench.sandbox.state.project(bench.sandbox.project_hash).workflow.tasks
    if status is not None:
        tasks[str(first(bench).uuid)].status = status
    odd = json.dumps(json.loads(bench.specs[0]) | {"status": status})
    seen: dict[UUID, object] = {}

    def look(task: AgentTask) -> str:
        seen[task.uuid] = task.status
        return FORWARD

    def look_at_labels(task: AgentTask, label_row: LabelRowV2) -> str:
        return look(task)

    execution = bench.execute(look_at_labels if with_labels else look, [odd, *bench.specs[1:]])
    assert [each.outcome for each in execution.outcomes] == [Outcome.PROCEEDED] * 10
    del seen[first(bench).uuid]
    assert list(seen.values()) == [AgentTaskStatus.NEW] * 9


def test_a_duplicate_runs_once(bench: Bench) -> None:
    ran: Counter[Any] = Counter()

    def agent(task: AgentTask) -> str:
        ran[task.uuid] += 1
        return FORWARD

    outcomes = bench.execute(agent, [bench.specs[0], bench.specs[1], bench.specs[0]]).outcomes
    assert [each.outcome for each in outcomes] == [Outcome.PROCEEDED] * 2
    assert set(ran.values()) == {1}


def test_one_that_left_before(bench: Bench) -> None:
    bench.project.put(str(first(bench).uuid), "Archive")
    ran = []

    def agent(task: AgentTask) -> str:
        ran.append(task.uuid)
        return FORWARD

    outcomes = bench.execute(agent).outcomes
    assert outcomes[0].outcome is Outcome.GONE
    assert first(bench).uuid not in ran
    assert Counter(each.outcome for each in outcomes[1:]) == {Outcome.PROCEEDED: 9}


def test_one_that_left_before_is_seen_by_its_label_row(bench: Bench) -> None:
    bench.project.put(str(first(bench).uuid), "Archive")
    outcomes = bench.execute(save).outcomes
    assert outcomes[0].outcome is Outcome.GONE
    assert Counter(each.outcome for each in outcomes[1:]) == {Outcome.PROCEEDED: 9}
    assert len(bench.sandbox.audit.records("labels.save", accepted=True)) == 9


def test_one_that_leaves_while_its_agent_runs_costs_two_calls(bench: Bench) -> None:
    def agent(task: AgentTask) -> str:
        if task.uuid == first(bench).uuid:
            bench.project.put(str(task.uuid), "Archive")
        return FORWARD

    outcomes: list[TaskOutcome] = []
    calls = bench.calls_of(lambda: outcomes.extend(bench.execute(agent).outcomes))
    assert outcomes[0].outcome is Outcome.GONE
    assert Counter(each.outcome for each in outcomes[1:]) == {Outcome.PROCEEDED: 9}
    assert calls == {"tasks.list": 2, "tasks.actions": 2}


def test_none_holds_and_still_saves(bench: Bench) -> None:
    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
        return TaskAgentReturnStruct(label_row=save(task, label_row).label_row)

    outcomes = bench.execute(agent).outcomes
    assert {each.outcome for each in outcomes} == {Outcome.HELD}
    assert bench.moves() == {}
    assert len(bench.sandbox.audit.records("labels.save", accepted=True)) == 10


def test_an_agent_that_exits_ends_itself_only(bench: Bench) -> None:
    def agent(task: AgentTask) -> str:
        if task.uuid == first(bench).uuid:
            sys.exit("out of weights")
        return FORWARD

    assert_only_the_first_failed(bench, bench.execute(agent).outcomes, "agent", "out of weights")


def test_ctrl_c_ends_the_batch(bench: Bench) -> None:
    def agent(task: AgentTask) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.execute(agent)
    assert bench.moves() == {}


def test_a_clean_up_that_swallows_hides_no_failure(bench: Bench) -> None:
    def swallowing() -> Iterator[int]:
        with contextlib.suppress(ValueError):
            yield 1

    def agent(task: AgentTask, one: Annotated[int, Depends(swallowing)]) -> str:
        if task.uuid == first(bench).uuid:
            raise ValueError("swallowed")
        return FORWARD

    assert_only_the_first_failed(bench, bench.execute(agent).outcomes, "agent", "swallowed")


def test_progress_counts_what_is_through(bench: Bench) -> None:
    reports: list[tuple[int, int]] = []

    def agent(task: AgentTask) -> str:
        if task.uuid == first(bench).uuid:
            raise ValueError
        return FORWARD

    bench.execute(agent, ["{", *bench.specs], report=lambda done, failed: reports.append((done, failed)))
    assert reports == [(number + 1, 2) for number in range(1, 11)]


def test_an_empty_batch_asks_nothing_of_the_stage(bench: Bench) -> None:
    calls = bench.calls_of(lambda: bench.execute(proceed, []))
    assert calls == {}
