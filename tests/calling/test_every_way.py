"""What is promised of one agent task and of a batch holds in whichever way the agent is called."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from encord.workflow.stages.agent import AgentTask

from celery_agents import Outcome
from celery_agents.delivery import Unledgered
from celery_agents.messages import TaskSpec
from celery_agents.retries import RetryPolicy
from celery_agents.work import Work
from tests.execution.agents import FORWARD
from tests.execution.conftest import Bench, StoppedWhen

from .conftest import number_of, run_in


def uuids_of(bench: Bench) -> list[UUID | None]:
    return [TaskSpec.decode(spec).uuid for spec in bench.specs]


def test_each_agent_task_is_done_once_and_told_of_in_order(bench: Bench, way: str) -> None:
    ran: Counter[UUID] = Counter()

    def answer(task: AgentTask) -> str:
        ran[task.uuid] += 1
        return FORWARD

    execution = run_in(way, bench, answer)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert [each.task_uuid for each in execution.outcomes] == uuids_of(bench)
    assert Counter(bench.moves().values()) == Counter(ran.values()) == {1: 10}


@pytest.mark.parametrize(
    ("trouble", "kind", "step"),
    [
        (ValueError("no such weights"), "builtins.ValueError", "agent"),
        (SystemExit("no such weights"), "builtins.SystemExit", "agent"),
        ("no such weights", "celery_agents.errors.AnswerError", "answer"),
    ],
    ids=["raises", "exits", "answers nonsense"],
)
def test_trouble_with_one_costs_that_one(bench: Bench, way: str, trouble: Any, kind: str, step: str) -> None:
    def answer(task: AgentTask) -> Any:
        if number_of(bench, task) != 5:
            return FORWARD
        if isinstance(trouble, BaseException):
            raise trouble
        return trouble

    outcomes = run_in(way, bench, answer).outcomes
    (failed,) = [each for each in outcomes if each.outcome is not Outcome.PROCEEDED]
    assert failed.error is not None
    assert (failed.task_uuid, failed.error.type, failed.error.step) == (uuids_of(bench)[5], kind, step)
    assert "no such weights" in failed.error.detail
    assert sum(bench.moves().values()) == 9


def test_what_autoretry_for_names_goes_round_again(bench: Bench, way: str) -> None:
    def answer(task: AgentTask) -> str:
        if number_of(bench, task) == 5:
            raise ConnectionError("the model server restarts")
        return FORWARD

    execution = run_in(way, bench, answer, retry=RetryPolicy(autoretry_for=(ConnectionError,)))
    assert (len(execution.outcomes), execution.waiting) == (9, [uuids_of(bench)[5]])


def test_stopping_ends_what_runs_and_begins_nothing(bench: Bench, way: str) -> None:
    begun: list[UUID] = []

    def answer(task: AgentTask) -> str:
        begun.append(task.uuid)
        return FORWARD

    execution = run_in(way, bench, answer, watch=StoppedWhen(lambda: len(begun) >= 3))
    assert 3 <= len(begun) <= 7
    assert {each.task_uuid for each in execution.outcomes} == set(begun)
    assert {each.outcome for each in execution.outcomes} == {Outcome.PROCEEDED}
    assert len(execution.again) == 10 - len(begun)
    assert sum(bench.moves().values()) == len(begun)

    ended = run_in(way, bench, answer, specs=execution.again, carry=execution.carry)
    assert Counter(each.outcome for each in ended.outcomes) == {Outcome.PROCEEDED: 10}
    assert Counter(bench.moves().values()) == {1: 10}


def test_a_long_batch_is_committed_as_it_goes(bench: Bench, way: str) -> None:
    settled: list[int] = []

    class Delivery(Unledgered):
        def settle(self, works: Any) -> None:
            settled.append(sum(bench.moves().values()))

    execution = run_in(way, bench, lambda task: FORWARD, delivery=Delivery(), commit_every=3)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert settled
    assert settled[0] < 10
    assert settled == sorted(set(settled))


def test_commits_are_on_the_thread_that_executes(bench: Bench, way: str) -> None:
    """A client, a ledger and Celery's request belong to it."""
    seen: set[str] = set()

    class Delivery(Unledgered):
        def held(self, works: Any) -> Any:
            seen.add(threading.current_thread().name)
            return works

    run_in(way, bench, lambda task: FORWARD, delivery=Delivery(), commit_every=1)
    assert seen == {threading.current_thread().name}


def test_progress_counts_what_is_through(bench: Bench, way: str) -> None:
    reports: list[tuple[int, int]] = []

    def answer(task: AgentTask) -> str:
        if number_of(bench, task) == 0:
            raise ValueError
        return FORWARD

    run_in(way, bench, answer, report=lambda done, failed: reports.append((done, failed)))
    assert reports[-1] == (10, 1)
    assert reports == sorted(reports)


class AfterADeath(Unledgered):
    """A delivery whose predecessor has died, as far as is known while it ran the agent task *suspect*."""

    def __init__(self, suspect: UUID | None) -> None:
        self.suspect = suspect
        self.told: list[str] = []  #: what ran, and ``commit``

    def is_careful(self) -> bool:
        return True

    def is_suspect(self, work: Work) -> bool:
        return work.spec.uuid == self.suspect

    def note(self, work: Work | None) -> None:
        self.told.append(str(work.spec.uuid) if work else "commit")


def test_after_a_death_each_is_alone_and_the_suspect_comes_last(bench: Bench, way: str) -> None:
    delivery = AfterADeath(uuids_of(bench)[2])
    at_work: list[UUID] = []
    together: set[int] = set()

    def answer(task: AgentTask) -> str:
        at_work.append(task.uuid)
        together.add(len(at_work))
        assert delivery.told[-1] == str(task.uuid)
        at_work.remove(task.uuid)
        return FORWARD

    execution = run_in(way, bench, answer, delivery=delivery)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert together == {1}
    ran = [each for each in delivery.told if each != "commit"]
    assert len(ran) == 10
    assert delivery.told[-3:] == ["commit", str(delivery.suspect), "commit"]


@pytest.mark.parametrize("way", ["one_by_one", "in_threads", "in_lists"])
def test_ctrl_c_ends_the_batch(bench: Bench, way: str) -> None:
    """On the loop nothing but the agent can raise it, whose own it is then."""

    def answer(task: AgentTask) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(way, bench, answer)
    assert bench.moves() == {}
