"""``deferred_saves=True``: what an agent writes by itself is sent at the commit, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.project import Project
from encord.workflow.stages.agent import AgentTask

from celery_agents import Outcome
from celery_agents.batch import Execution
from celery_agents.messages import TaskOutcome, TaskSpec
from celery_agents.retries import RetryPolicy
from tests.execution.agents import FORWARD, WITH_BOXES, add_box
from tests.execution.conftest import Bench

from .conftest import WAYS, number_of, run

Answer: TypeAlias = Callable[[AgentTask, LabelRowV2], Any]


def run_in(way: str, bench: Bench, answer: Answer, **options: Any) -> Execution:
    """Execute the bench's specs with an agent of *way* that is given label rows."""

    def plain(task: AgentTask, row: LabelRowV2) -> Any:
        return answer(task, row)

    async def coroutine(task: AgentTask, row: LabelRowV2) -> Any:
        await asyncio.sleep(0)
        return answer(task, row)

    def with_lists(tasks: list[AgentTask], rows: list[LabelRowV2]) -> list[Any]:
        return [answer_or_exception(task, row) for task, row in zip(tasks, rows, strict=True)]

    def answer_or_exception(task: AgentTask, row: LabelRowV2) -> Any:
        try:
            return answer(task, row)
        except ValueError as error:
            return error

    written: dict[str, Callable[..., Any]] = {"on_the_loop": coroutine, "in_lists": with_lists}
    return run(bench, written.get(way, plain), **{"deferred_saves": True, **WAYS[way], **options})


def saved(bench: Bench) -> list[str | None]:
    """Whose labels were saved, in order."""
    return [each.data_hash for each in bench.sandbox.audit.records("labels.save", accepted=True)]


def boxes(bench: Bench, outcome: TaskOutcome) -> int:
    """How many objects Encord has of an agent task."""
    row = bench.project.labels.of(str(outcome.data_hash))
    return len(list(row.objects())) if row else 0


def save_one_box(task: AgentTask, row: LabelRowV2) -> str:
    if row.data_type.value in WITH_BOXES:
        add_box(row)
    row.save()
    return FORWARD


def test_all_saves_are_one_call_before_the_moves(bench: Bench, way: str) -> None:
    calls = bench.calls_of(lambda: run_in(way, bench, save_one_box))
    assert (calls["labels.save"], calls["tasks.actions"]) == (1, 1)
    assert Counter(saved(bench)) == Counter(str(TaskSpec.decode(spec).data_hash) for spec in bench.specs)
    assert bench.sandbox.audit.late_saves() == []
    assert Counter(bench.moves().values()) == {1: 10}


def test_without_the_option_each_is_sent_at_once(bench: Bench) -> None:
    calls = bench.calls_of(lambda: run_in("one_by_one", bench, save_one_box, deferred_saves=False))
    assert calls["labels.save"] == 10


def test_an_agent_that_raises_has_saved_nothing(bench: Bench, way: str) -> None:
    def answer(task: AgentTask, row: LabelRowV2) -> str:
        save_one_box(task, row)
        if number_of(bench, task) == 3:
            raise ValueError("no such weights")
        return FORWARD

    outcomes = run_in(way, bench, answer).outcomes
    assert [each.outcome for each in outcomes].index(Outcome.FAILED) == 3
    assert str(outcomes[3].data_hash) not in saved(bench)
    assert len(saved(bench)) == sum(bench.moves().values()) == 9


def test_what_encord_refuses_fails_its_own_agent_task(bench: Bench, way: str) -> None:
    def answer(task: AgentTask, row: LabelRowV2) -> str:
        if number_of(bench, task) == 3:
            bench.project.labels.remove(str(task.data_hash))  # somebody deletes the labels meanwhile
        return save_one_box(task, row)

    outcomes = run_in(way, bench, answer).outcomes
    (failed,) = [each for each in outcomes if each.outcome is not Outcome.PROCEEDED]
    assert failed is outcomes[3]
    assert failed.error is not None
    assert (failed.outcome, failed.error.step) == (Outcome.FAILED, "save")
    assert bench.where(failed) == "Pre-label"
    assert len(saved(bench)) == sum(bench.moves().values()) == 9


def test_the_last_save_counts_as_it_was_then(bench: Bench) -> None:
    def answer(task: AgentTask, row: LabelRowV2) -> str:
        if row.data_type.value in WITH_BOXES:
            for _ in range(2):
                add_box(row)
                row.save()
            add_box(row)
        return FORWARD

    outcomes = run_in("one_by_one", bench, answer).outcomes
    numbers = Counter(boxes(bench, each) for each in outcomes)
    assert set(numbers) <= {0, 2}
    assert numbers[2] == len(saved(bench)) > 0


@pytest.mark.parametrize("moves", ["proceed", "move"])
def test_a_move_of_the_agents_own_does_not_overtake_its_save(bench: Bench, moves: str) -> None:
    elsewhere = bench.gateway.agent_stages()[1].uuid

    def answer(task: AgentTask, row: LabelRowV2) -> None:
        row.save()
        if moves == "proceed":
            task.proceed(pathway_name=FORWARD)
        else:
            task.move(destination_stage_uuid=elsewhere)

    outcomes = run_in("one_by_one", bench, answer).outcomes
    assert {each.outcome for each in outcomes} == {Outcome.PROCEEDED}
    assert (bench.sandbox.audit.late_saves(), len(saved(bench))) == ([], 10)
    assert Counter(bench.moves().values()) == {1: 10}


def test_completing_and_reopening_a_row_are_moves(bench: Bench) -> None:
    """The sandbox has neither call, so what would be sent is looked at."""
    staged, spec = bench.gateway.new_bundle(), TaskSpec.decode(bench.specs[0])
    (row,) = bench.gateway.label_rows([spec], {}).values()
    bench.gateway.initialise([row], {})
    bench.gateway.defer_writes(staged, row, None)

    def write() -> None:
        row.set_priority(0.5)
        row.workflow_reopen()
        row.workflow_complete()
        row.save()

    calls = bench.calls_of(write)
    assert (calls, staged.has_moves) == ({}, True)
    assert [write.moves_a_task for write in staged.writes()] == [False, True, True, False]


def test_a_bundle_of_the_agents_own_is_its_own(bench: Bench) -> None:
    seen: list[int] = []

    def agent(task: AgentTask, row: LabelRowV2, project: Project, ours: Bundle) -> str:
        number = number_of(bench, task)
        if number == 0:
            with project.create_bundle() as own:
                row.save(own)
        elif number == 1:
            row.save()
            ours.execute()  # send now what waits
        elif number == 2:
            (read_by_agent,) = project.list_label_rows_v2(data_hashes=[row.data_hash])
            read_by_agent.initialise_labels()
            read_by_agent.save()
        else:
            row.save()
        seen.append(len(saved(bench)))
        return FORWARD

    run(bench, agent, deferred_saves=True)
    assert seen == [1, 2, *[3] * 8]
    assert len(saved(bench)) == 10


def test_only_who_asks_for_it_is_validated(bench: Bench) -> None:
    """The SDK validates all rows of a request where one of them is to be validated."""

    def answer(task: AgentTask, row: LabelRowV2) -> str:
        row.save(validate_before_saving=number_of(bench, task) == 0)
        return FORWARD

    calls = bench.calls_of(lambda: run_in("one_by_one", bench, answer))
    assert (calls["labels.save"], len(saved(bench))) == (2, 10)


def test_what_goes_round_again_is_saved_once(bench: Bench) -> None:
    ran: Counter[int] = Counter()

    def answer(task: AgentTask, row: LabelRowV2) -> str:
        number = number_of(bench, task)
        ran[number] += 1
        save_one_box(task, row)
        if number == 3 and ran[number] == 1:
            raise ConnectionError("the model server restarts")
        return FORWARD

    retry = RetryPolicy(autoretry_for=(ConnectionError,))
    execution = run_in("one_by_one", bench, answer, retry=retry)
    again = run_in("one_by_one", bench, answer, retry=retry, specs=execution.again, carry=execution.carry)
    assert {each.outcome for each in again.outcomes} == {Outcome.PROCEEDED}
    assert set(Counter(saved(bench)).values()) == {1}
    assert Counter(bench.moves().values()) == {1: 10}
