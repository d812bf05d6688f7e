"""What passes goes round again, alone; what is decided stays decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from encord.workflow.stages.agent import AgentTask

from celery_agents import Outcome, commit
from celery_agents.batch import Execution
from celery_agents.gateway.project import Gateway
from celery_agents.messages import Carry, TaskError, TaskSpec
from celery_agents.retries import RetryPolicy
from celery_agents.sandbox import Fault

from .agents import FORWARD, proceed, save
from .conftest import Bench, StoppedWhen

PASSING = [
    Fault(call="", status=500),
    Fault(call="", status=502, html=True),
    Fault(call="", status=503),
    Fault(call="", status=504, html=True),
    Fault(call="", status=429),
    Fault(call="", status=429, retry_after="7"),
    Fault(call="", drop="before"),
    Fault(call="", drop="after"),
]
CALLS = ["label_rows.list", "labels.create", "labels.save", "tasks.actions"]


def in_one_attempt(fault: Fault, call: str) -> Fault:
    """Return *fault* for as often as one attempt makes *call*: a save is insisted on, unless Encord wants to be left alone.

    A read is repeated at once where the connection that was kept is closed under it.
    """
    is_insisted_on = call == "labels.save" and fault.status != 429
    is_repeated = call == "label_rows.list" and fault.drop is not None
    return Fault(
        call=call,
        nth=(1, 2, 3) if is_insisted_on else (1, 2) if is_repeated else (1,),
        status=fault.status,
        retry_after=fault.retry_after,
        html=fault.html,
        drop=fault.drop,
    )


def counts(execution: Execution) -> Counter[Outcome]:
    return Counter(each.outcome for each in execution.outcomes)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault", PASSING, ids=lambda fault: f"{fault.status or fault.drop}-{fault.retry_after}"
)
def test_trouble_that_passes_goes_round_again(bench: Bench, call: str, fault: Fault) -> None:
    """Each kind of passing trouble, with each call of a batch: nothing is decided wrongly, and the next attempt ends it."""
    bench.sandbox.faults.add(in_one_attempt(fault, call))
    execution = bench.execute(save)
    assert (execution.outcomes, len(execution.again)) == ([], 10)
    assert execution.countdown == (7 if fault.retry_after else 2)
    ended = bench.again(save, execution)
    assert (counts(ended), ended.again) == ({Outcome.PROCEEDED: 10}, [])
    assert set(bench.moves().values()) == {1}
    assert len(bench.moves()) == 10


@pytest.mark.parametrize("fault", [Fault(call="", status=503), Fault(call="", drop="after")])
def test_a_save_is_insisted_on_so_that_no_agent_runs_again(bench: Bench, fault: Fault) -> None:
    bench.sandbox.faults.add(replace(fault, call="labels.save", nth=(1, 2)))
    ended: list[Execution] = []
    calls = bench.calls_of(lambda: ended.append(bench.execute(save)))
    assert counts(ended[0]) == {Outcome.PROCEEDED: 10}
    assert calls["labels.save"] == 3


def test_a_save_that_was_slow_to_fail_is_not_insisted_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the worker once more; the message goes round instead."""
    monkeypatch.setattr(commit, "SLOW_FAILURE", 0.0)
    bench.sandbox.faults.add(Fault(call="labels.save", status=503))
    calls = bench.calls_of(lambda: bench.execute(save))
    assert calls["labels.save"] == 1


def test_a_move_that_did_not_get_through_runs_no_agent_again(bench: Bench) -> None:
    ran: Counter[UUID] = Counter()

    def agent(task: AgentTask) -> str:
        ran[task.uuid] += 1
        return FORWARD

    bench.sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), status=500))
    execution = bench.execute(agent)
    calls = bench.calls_of(lambda: bench.again(agent, execution))
    assert set(ran.values()) == {1}
    assert calls == {"tasks.list": 1, "tasks.actions": 1}


def test_a_move_whose_answer_was_lost_is_ours(bench: Bench) -> None:
    bench.sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), drop="after"))
    ended = bench.again(proceed, bench.execute(proceed))
    assert counts(ended) == {Outcome.PROCEEDED: 10}
    assert {each.pathway_name for each in ended.outcomes} == {FORWARD}


def stopped(bench: Bench, execution: Execution) -> Execution:
    return bench.again(proceed, execution, watch=StoppedWhen(lambda: True))


def without_a_project(bench: Bench, execution: Execution) -> Execution:
    bench.sandbox.faults.add(Fault(call="projects.get", status=503, nth=(1,)))
    elsewhere = Gateway(bench.gateway.project_hash, bench.gateway.client)
    ended = replace(bench, gateway=elsewhere).again(proceed, execution)
    assert len(ended.again) == 10
    return ended


def test_trouble_of_others_is_no_attempt_of_ones_own(bench: Bench) -> None:
    """One fails in the first attempt, another only in the second: each has the retry that the policy allows."""
    first, second = (TaskSpec.decode(raw).uuid for raw in bench.specs[:2])
    failing = {1: first, 2: second}

    def agent(task: AgentTask) -> str:
        if task.uuid == failing.get(attempt):
            raise TimeoutError("model server")
        return FORWARD

    policy = RetryPolicy(autoretry_for=(TimeoutError,), max_retries=1, retry_jitter=False)
    attempt = 1
    execution = bench.execute(agent, bench.specs[:1], retry=policy)
    attempt = 2
    later = Carry(errors=execution.carry.errors, attempt=2)
    execution = bench.execute(agent, bench.specs[:2], carry=later, retry=policy)
    assert [TaskSpec.decode(raw).uuid for raw in execution.again] == [second]
    attempt = 3
    assert counts(bench.again(agent, execution, retry=policy)) == {Outcome.PROCEEDED: 2}


@pytest.mark.parametrize("attempt", [stopped, without_a_project])
def test_an_attempt_that_gets_nowhere_forgets_nothing(
    bench: Bench, attempt: Callable[[Bench, Execution], Execution]
) -> None:
    """It does not come to the moves that the one before left to it; the next one still knows them."""
    bench.sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), drop="after"))
    first = bench.execute(proceed)
    between = attempt(bench, first)
    assert between.carry.moves == first.carry.moves
    assert {uuid: errors[:1] for uuid, errors in between.carry.errors.items()} == first.carry.errors
    ended = bench.again(proceed, between)
    assert counts(ended) == {Outcome.PROCEEDED: 10}
    assert set(bench.moves().values()) == {1}


def test_a_move_whose_answer_was_lost_and_went_elsewhere_is_somebody_elses(bench: Bench) -> None:
    bench.sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), drop="before"))
    execution = bench.execute(proceed)
    moved = TaskSpec.decode(bench.specs[0])
    elsewhere = next(pathway for pathway in bench.stage.pathways if pathway.name != FORWARD)
    bench.gateway.proceed(bench.stage, [(moved.uuid, elsewhere.uuid)])
    ended = bench.again(proceed, execution)
    assert ended.outcomes[0].outcome is Outcome.GONE
    assert counts(ended) == {Outcome.GONE: 1, Outcome.PROCEEDED: 9}


def test_an_agents_exception_is_final_unless_named(bench: Bench) -> None:
    def agent(task: AgentTask) -> str:
        raise TimeoutError("model server")

    assert counts(bench.execute(agent)) == {Outcome.FAILED: 10}
    named = bench.execute(agent, retry=RetryPolicy(autoretry_for=(OSError,)))
    assert (named.outcomes, len(named.again)) == ([], 10)
    refused = bench.execute(
        agent, retry=RetryPolicy(autoretry_for=(OSError,), dont_autoretry_for=(TimeoutError,))
    )
    assert counts(refused) == {Outcome.FAILED: 10}


def test_only_what_passes_goes_round_and_the_rest_is_kept(bench: Bench) -> None:
    transient, final = (TaskSpec.decode(spec).uuid for spec in bench.specs[:2])
    calls = Counter[UUID]()

    def agent(task: AgentTask) -> str:
        calls[task.uuid] += 1
        if task.uuid == transient and calls[task.uuid] == 1:
            raise ConnectionError("once")
        if task.uuid == final:
            raise ValueError("for good")
        return FORWARD

    policy = RetryPolicy(autoretry_for=(ConnectionError,))
    execution = bench.execute(agent, retry=policy)
    assert counts(execution) == {Outcome.PROCEEDED: 8, Outcome.FAILED: 1}
    assert [TaskSpec.decode(raw).uuid for raw in execution.again] == [transient]
    carry = Carry.model_validate_json(execution.carry.model_dump_json())
    ended = bench.execute(agent, execution.again, carry=carry, retry=policy)
    assert counts(ended) == {Outcome.PROCEEDED: 9, Outcome.FAILED: 1}
    assert (calls[transient], calls[final]) == (2, 1)


def test_retries_that_are_used_up_keep_every_error(bench: Bench) -> None:
    tries: list[int] = []

    def agent(task: AgentTask) -> str:
        tries.append(len(tries) + 1)
        raise ConnectionError(f"try {len(tries)}")

    policy = RetryPolicy(autoretry_for=(ConnectionError,), max_retries=2)
    execution = bench.execute(agent, bench.specs[:1], retry=policy)
    for _ in (2, 3):
        execution = bench.again(agent, execution, retry=policy)
    (outcome,) = execution.outcomes
    assert (execution.again, outcome.outcome) == ([], Outcome.FAILED)
    assert outcome.error is not None
    assert [error.detail for error in (*outcome.earlier_errors, outcome.error)] == ["try 1", "try 2", "try 3"]
    assert [error.attempt for error in (*outcome.earlier_errors, outcome.error)] == [1, 2, 3]
    assert outcome.error.transient


def test_in_the_last_attempt_a_refusal_that_looks_passing_is_narrowed_down(bench: Bench) -> None:
    """A bundle that is answered with 500 each time it holds the guilty one takes no other along in the end."""
    bench.sandbox.faults.add(Fault(call="labels.save", nth=(1,), status=500))
    trouble = tuple(TaskError(type="a.b", detail="503", transient=True) for _ in range(10))
    carry = Carry(errors={TaskSpec.decode(raw).uuid: trouble for raw in bench.specs}, attempt=11)
    execution = bench.execute(save, carry=carry)
    assert counts(execution) == {Outcome.PROCEEDED: 10}


def test_a_stage_that_cannot_be_read_goes_round(bench: Bench) -> None:
    bench.gateway.__dict__.pop("project")
    bench.sandbox.faults.add(Fault(call="projects.get", nth=(1,), status=503))
    execution = bench.execute(proceed)
    assert len(execution.again) == 10
    assert counts(bench.again(proceed, execution)) == {Outcome.PROCEEDED: 10}


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        (RetryPolicy(retry_jitter=False), [2, 4, 8]),
        (RetryPolicy(retry_jitter=False, retry_backoff=True), [1, 2, 4]),
        (RetryPolicy(retry_jitter=False, retry_backoff=100, retry_backoff_max=150), [100, 150, 150]),
        (RetryPolicy(retry_backoff=False, default_retry_delay=5), [5, 5, 5]),
    ],
)
def test_pauses(policy: RetryPolicy, pauses: list[float]) -> None:
    assert [policy.countdown(attempt) for attempt in (1, 2, 3)] == pauses
    assert policy.countdown(1, retry_after=1000) == 1000


def test_jitter_stays_within_its_pause() -> None:
    drawn = [RetryPolicy(retry_backoff=8).countdown(1) for _ in range(200)]
    assert all(0 <= pause <= 8 for pause in drawn)
    assert len(set(drawn)) > 100
