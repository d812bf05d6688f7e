"""``batched=True``: the agent gets lists, and what goes wrong with one agent task is that one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pytest
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.project import Project
from encord.storage import StorageItem
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage, AgentTask
from numpy.typing import NDArray

from celery_agents import Depends, Outcome, TaskAgentReturnStruct
from celery_agents.delivery import Unledgered
from celery_agents.dependencies import dep_single_frame
from celery_agents.errors import Cancelled
from celery_agents.progress import Progress
from celery_agents.retries import RetryPolicy
from celery_agents.supervision import Supervision
from celery_agents.watch import Limits
from tests.execution.agents import FORWARD, save
from tests.execution.conftest import Bench

from .conftest import number_of, run


def run_lists(bench: Bench, function: Any, **options: Any) -> list[Any]:
    return run(bench, function, is_batched=True, **options).outcomes


def test_lists_are_aligned_and_what_is_the_same_for_all_is_no_list(bench: Bench) -> None:
    calls = []

    def title(task: AgentTask) -> str:
        return task.data_title

    def agent(
        tasks: list[AgentTask],
        rows: list[LabelRowV2],
        items: Sequence[StorageItem],
        titles: Annotated[list[str], Depends(title)],
        project: Project,
        stage: AgentStage,
        client: EncordUserClient,
        threshold: float = 0.5,
    ) -> list[TaskAgentReturnStruct]:
        calls.append(len(tasks))
        assert [task.data_title for task in tasks] == titles == [item.name for item in items]
        assert [str(task.data_hash) for task in tasks] == [row.data_hash for row in rows]
        assert (str(project.project_hash), stage.title) == (bench.sandbox.project_hash, "Pre-label")
        assert isinstance(client, EncordUserClient)
        assert threshold == 0.5
        return [save(task, row) for task, row in zip(tasks, rows, strict=True)]

    outcomes = run_lists(bench, agent)
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 10}
    assert calls == [10]
    assert len(bench.sandbox.audit.records("labels.save", accepted=True)) == 10


@pytest.mark.parametrize("concurrency", [None, 4])
def test_one_whose_dependency_fails_is_in_no_list(bench: Bench, concurrency: int | None) -> None:
    """Frames of a text or an audio file, say."""
    shapes: list[tuple[int, ...]] = []

    def agent(frames: Annotated[list[NDArray[np.uint8]], Depends(dep_single_frame)]) -> list[str]:
        shapes.extend(frame.shape for frame in frames)
        return [FORWARD] * len(frames)

    outcomes = run_lists(bench, agent, concurrency=concurrency)
    failed = [each for each in outcomes if each.outcome is Outcome.FAILED]
    assert 0 < len(failed) < 10
    assert len(shapes) == 10 - len(failed) == sum(bench.moves().values())
    assert {each.error.step for each in failed} == {"agent"}


@pytest.mark.parametrize(
    ("returned", "detail"),
    [
        (
            "labelled",
            "called with lists of 10 (batched=True) and returned str: return a list with one answer",
        ),
        (None, "and returned NoneType: return a list"),
        (["labelled"] * 9, "called with lists of 10 and returned a list of 9"),
        ([], "and returned a list of 0"),
    ],
    ids=["text", "nothing", "one too few", "empty"],
)
def test_an_answer_that_is_not_one_each_is_nobodys(bench: Bench, returned: Any, detail: str) -> None:
    def agent(tasks: list[AgentTask]) -> Any:
        return returned

    outcomes = run_lists(bench, agent)
    assert Counter(each.outcome for each in outcomes) == {Outcome.FAILED: 10}
    assert {each.error.type for each in outcomes} == {"celery_agents.errors.AnswerError"}
    assert {each.error.step for each in outcomes} == {"answer"}
    assert detail in outcomes[0].error.detail
    assert bench.moves() == {}


def test_what_the_agent_raises_is_the_failure_of_its_list(bench: Bench) -> None:
    def agent(tasks: list[AgentTask]) -> list[str]:
        if number_of(bench, tasks[0]) == 4:
            raise MemoryError("too large a batch")
        return [FORWARD] * len(tasks)

    outcomes = run_lists(bench, agent, list_size=4)
    assert [each.outcome is Outcome.FAILED for each in outcomes] == [False] * 4 + [True] * 4 + [False] * 2
    assert {each.error.type for each in outcomes if each.error} == {"builtins.MemoryError"}
    assert "in agent" in outcomes[4].error.traceback


def test_what_the_agent_raises_is_retried_where_autoretry_for_names_it(bench: Bench) -> None:
    def agent(tasks: list[AgentTask]) -> list[str]:
        raise ConnectionError

    retry = RetryPolicy(autoretry_for=(ConnectionError,))
    execution = run(bench, agent, is_batched=True, retry=retry)
    assert (execution.outcomes, len(execution.again)) == ([], 10)


def test_an_exception_in_the_list_is_one_agent_tasks(bench: Bench) -> None:
    def agent(tasks: list[AgentTask]) -> list[Any]:
        return [ValueError("blurred"), None, TaskAgentReturnStruct(FORWARD), *([FORWARD] * 7)]

    outcomes = run_lists(bench, agent)
    assert [each.outcome for each in outcomes[:3]] == [Outcome.FAILED, Outcome.HELD, Outcome.PROCEEDED]
    assert (outcomes[0].error.type, outcomes[0].error.detail) == ("builtins.ValueError", "blurred")
    assert sum(bench.moves().values()) == 8


def test_lists_are_no_longer_than_is_asked_for(bench: Bench) -> None:
    lengths = []

    def agent(tasks: list[AgentTask]) -> list[str]:
        lengths.append(len(tasks))
        return [FORWARD] * len(tasks)

    run_lists(bench, agent, list_size=4)
    assert lengths == [4, 4, 2]


def test_nobody_is_called_with_empty_lists(bench: Bench) -> None:
    def fail(task: AgentTask) -> int:
        raise ValueError

    def agent(numbers: Annotated[list[int], Depends(fail)]) -> list[str]:
        raise AssertionError("not reached")

    assert {each.error.type for each in run_lists(bench, agent)} == {"builtins.ValueError"}


def test_an_agent_of_lists_may_be_a_coroutine(bench: Bench) -> None:
    async def title(task: AgentTask) -> str:
        return task.data_title

    async def agent(tasks: list[AgentTask], titles: Annotated[list[str], Depends(title)]) -> list[str]:
        assert titles == [task.data_title for task in tasks]
        return [FORWARD] * len(tasks)

    assert Counter(each.outcome for each in run_lists(bench, agent)) == {Outcome.PROCEEDED: 10}


def test_clean_ups_are_in_reverse_order_and_see_what_was_raised(bench: Bench) -> None:
    events: list[str] = []

    def outer(task: AgentTask) -> Iterator[int]:
        try:
            yield number_of(bench, task)
        except ValueError as error:
            events.append(f"outer of {number_of(bench, task)} saw {error}")
            raise
        else:
            events.append(f"outer of {number_of(bench, task)}")

    def inner(number: Annotated[int, Depends(outer)]) -> Iterator[int]:
        yield number
        events.append(f"inner of {number}")

    def agent(numbers: Annotated[list[int], Depends(inner)]) -> list[Any]:
        events.append(f"called with {numbers}")
        return [ValueError("no good") if number == 1 else FORWARD for number in numbers]

    outcomes = run_lists(bench, agent, specs=bench.specs[:3])
    assert [each.outcome for each in outcomes] == [Outcome.PROCEEDED, Outcome.FAILED, Outcome.PROCEEDED]
    assert events == [
        "called with [0, 1, 2]",
        "inner of 2",
        "outer of 2",
        "outer of 1 saw no good",
        "inner of 0",
        "outer of 0",
    ]


def test_a_clean_up_that_fails_or_swallows_is_one_agent_tasks(bench: Bench) -> None:
    def number(task: AgentTask) -> Iterator[int]:
        own = number_of(bench, task)
        try:
            yield own
        except ValueError:
            return  # it swallows
        if own == 2:
            raise OSError("disk full")

    def agent(numbers: Annotated[list[int], Depends(number)]) -> list[Any]:
        return [ValueError("no good") if own == 1 else FORWARD for own in numbers]

    outcomes = run_lists(bench, agent)
    assert {each.error.type for each in outcomes if each.error} == {"builtins.ValueError", "builtins.OSError"}
    assert [each.outcome for each in outcomes[:4]] == [
        Outcome.PROCEEDED,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.PROCEEDED,
    ]


def test_a_dependency_that_swallows_what_another_raised_hides_no_failure(bench: Bench) -> None:
    def swallowing() -> Iterator[int]:
        try:
            yield 1
        except ValueError:
            return

    def fails(task: AgentTask, one: Annotated[int, Depends(swallowing)]) -> int:
        raise ValueError("swallowed")

    def agent(numbers: Annotated[list[int], Depends(fails)]) -> list[str]:
        return [FORWARD] * len(numbers)

    outcomes = run_lists(bench, agent)
    assert {(each.outcome, each.error.detail) for each in outcomes} == {(Outcome.FAILED, "swallowed")}


def test_each_has_a_bundle_of_its_own(bench: Bench) -> None:
    def agent(rows: list[LabelRowV2], bundles: list[Bundle]) -> list[Any]:
        for row, bundle in zip(rows, bundles, strict=True):
            row.set_priority(0.5, bundle=bundle)
        return [ValueError("no good"), *([FORWARD] * 9)]

    outcomes = run_lists(bench, agent)
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 9, Outcome.FAILED: 1}
    assert len(bench.sandbox.audit.records("priorities.set", accepted=True)) == 9


def test_the_soft_limit_is_that_of_a_call(bench: Bench) -> None:
    def agent(tasks: list[AgentTask]) -> list[str]:
        while number_of(bench, tasks[0]) == 5:
            pass
        return [FORWARD] * len(tasks)

    watch = Supervision("message", Unledgered(), limits=Limits(soft=0.3))
    outcomes = run_lists(bench, agent, list_size=5, watch=watch)
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 5, Outcome.FAILED: 5}
    assert {each.error.type for each in outcomes if each.error} == {"celery_agents.errors.TimedOutError"}


def test_one_that_is_told_to_stop_before_its_list_is_called_stays_as_it_was(bench: Bench) -> None:
    class Cancelling(Supervision):
        def check(self, seconds: float) -> None:
            raise Cancelled("the message was cancelled")

    def download(task: AgentTask, progress: Progress) -> int:
        if number_of(bench, task) == 3:
            progress.update(1, 2)
        return 1

    def agent(files: Annotated[list[int], Depends(download)]) -> list[str]:
        return [FORWARD] * len(files)

    execution = run(bench, agent, is_batched=True, watch=Cancelling("message", Unledgered()))
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 9}
    assert (len(execution.again), execution.trouble) == (1, [])


def test_a_list_whose_agent_is_told_to_stop_stays_as_it_was(bench: Bench) -> None:
    """The message was cancelled: whichever of the list's progress said so, none of them failed."""

    class Cancelling(Supervision):
        def check(self, seconds: float) -> None:
            raise Cancelled("the message was cancelled")

    def agent(tasks: list[AgentTask], progress: list[Progress]) -> list[str]:
        progress[0].update(1, 2)
        return [FORWARD] * len(tasks)

    execution = run(bench, agent, is_batched=True, watch=Cancelling("message", Unledgered()))
    assert (execution.outcomes, len(execution.again), execution.trouble) == ([], 10, [])
    assert bench.moves() == {}
