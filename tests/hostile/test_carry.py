"""What a message brings of its earlier attempts is part of the message: whatever it says harms nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from encord.workflow.stages.agent import AgentTask

from celery_agents.errors import SpecError
from celery_agents.messages import ERRORS_TOLD, MOST_ATTEMPTS, Carry, Outcome, TaskError, tries
from celery_agents.retries import RetryPolicy
from celery_agents.sandbox import SandboxServer
from tests.execution.conftest import Bench, open_bench

FOREIGN = "10000000-0000-4000-8000-000000000001"


@pytest.fixture
def bench() -> Iterator[Bench]:
    with SandboxServer.start(tasks=3, seed=3) as sandbox:
        yield open_bench(sandbox)


def uuid_of(spec: str) -> UUID:
    return UUID(json.loads(spec)["uuid"])


def raise_passing(task: AgentTask) -> None:
    raise ConnectionError("not now")


def hold(task: AgentTask) -> None:
    """Leave it where it is."""


#: What is carried, of which OWN is one of the batch. To add a case, add a line.
ODD: dict[str, dict[str, Any]] = {
    "outcomes of others": {"outcomes": [{"outcome": "PROCEEDED", "task_uuid": FOREIGN, "pathway": FOREIGN}]},
    "outcomes of nobody": {"outcomes": [{"outcome": "FAILED"}] * 1_000},
    "errors of others": {"errors": {FOREIGN: [{"type": "a", "detail": "b"}] * 5_000}},
    "moves of others": {"moves": {FOREIGN: FOREIGN}},
    "a move along a pathway that there is not": {"moves": {"OWN": FOREIGN}},
    "an attempt beyond all": {"attempt": 10**30},
    "errors beyond all": {"errors": {"OWN": [{"type": "a", "detail": "b", "times": 10**30}]}},
    "fields that nobody knows": {"specs": ["x"], "url": "http://127.0.0.1:9/"},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_the_batch_is_done_whatever_is_carried(bench: Bench, odd: dict[str, Any]) -> None:
    text = json.dumps(odd).replace("OWN", str(uuid_of(bench.specs[0])))
    carry = Carry.decode(json.loads(text))
    outcomes = bench.execute(hold, carry=carry).outcomes[len(carry.outcomes) :]
    assert [outcome.outcome for outcome in outcomes] == [Outcome.HELD] * 3
    assert bench.moves() == {}


@pytest.mark.parametrize("times", [1, 2_000, MOST_ATTEMPTS, 10**30])
def test_after_any_number_of_attempts_there_is_a_pause_and_another(bench: Bench, times: int) -> None:
    own = uuid_of(bench.specs[0])
    carry = Carry.decode(
        {"errors": {str(own): [{"type": "a", "detail": "b", "times": times}]}, "attempt": times}
    )
    retry = RetryPolicy(autoretry_for=(ConnectionError,), max_retries=None, retry_jitter=False)
    execution = bench.execute(raise_passing, bench.specs[:1], carry=carry, retry=retry)
    assert execution.outcomes == []
    assert execution.waiting == [own]
    assert 0 < execution.countdown <= 600
    assert Carry.decode(execution.carry.encode()).attempt == min(times + 1, MOST_ATTEMPTS)


def error(number: int) -> TaskError:
    return TaskError(
        type="builtins.OSError", detail=f"{number} " + "x" * 1_900, traceback="t" * 5_000, attempt=number
    )


def test_retries_do_not_make_a_message_longer() -> None:
    """A thousand attempts, each of which carries on what the one before did."""
    own, carry = uuid.uuid4(), Carry()
    for number in range(1, 1_001):
        history = (*carry.errors.get(own, ()), error(number))
        carry = Carry.decode(Carry(errors={own: history}).encode())
        assert tries(carry.errors[own]) == number
    assert len(json.dumps(carry.encode())) < 50_000
    assert [each.attempt for each in carry.errors[own]] == [*range(1, 11), 990, *range(991, 1_001)]
    assert [each.times for each in carry.errors[own]] == [*[1] * 10, 980, *[1] * 10]
    assert carry.errors[own][-1].detail.startswith("1000 ")


@pytest.mark.parametrize("number", range(1, 24))
def test_few_attempts_are_told_one_by_one(number: int) -> None:
    own = uuid.uuid4()
    carried = Carry.decode(Carry(errors={own: tuple(map(error, range(1, number + 1)))}).encode()).errors[own]
    assert tries(carried) == number
    if number <= ERRORS_TOLD + 1:
        assert [each.attempt for each in carried] == list(range(1, number + 1))


def test_what_is_carried_comes_back_as_it_was() -> None:
    assert Carry.decode(None) == Carry.decode({}) == Carry()
    carry = Carry(moves={uuid.uuid4(): uuid.uuid4()}, attempt=7)
    assert Carry.decode(json.loads(json.dumps(carry.encode()))) == carry


def test_too_much_is_refused_before_it_is_all_read() -> None:
    with pytest.raises(SpecError, match="at most 10000 items"):
        Carry.decode({"errors": {FOREIGN: [{"type": "", "detail": ""}] * 20_000}})
    with pytest.raises(SpecError, match="at most 100000 items"):
        Carry.decode({"outcomes": [{"outcome": "HELD"}] * 100_001})
