"""What is sent is claimed before, for a short time, and for long when it is in its queue."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from celery_agents import StageTask, TaskSpec, claims
from celery_agents.claims import QUEUED_SECONDS, SENDING_SECONDS, Outgoing, claim, confirm
from celery_agents.ledger import Claim, Ledger, Settlement
from celery_agents.messages import Outcome, TaskOutcome
from celery_agents.producer.reports import SentMessage
from celery_agents.producer.sweeping import sweep
from tests.producer.conftest import agent_task
from tests.producer.test_high_water import fresh, ledger_of


class Sending:
    """A task that looks at its claims when it sends, and does something then."""

    def __init__(self, task: StageTask, then: Any = lambda *_: None) -> None:
        self.ledger, self.stage = ledger_of(task), task.agent_stage.uuid
        self.seen: dict[UUID, Claim] = {}
        self.then = then
        self._original = task.apply_async
        task.apply_async = self._send  # type: ignore[method-assign, assignment]

    def _send(self, args: Any, **options: Any) -> Any:
        uuids = [TaskSpec.decode(spec).uuid for spec in args[0]]
        self.seen |= self.ledger.who_holds(self.stage, uuids)
        self.then(options["task_id"], uuids)
        return self._original(args=args, **options)

    def claims(self) -> dict[UUID, Claim]:
        return self.ledger.who_holds(self.stage, list(self.seen))


def test_a_producer_that_is_killed_while_it_sends_blocks_nothing_for_long(app: Celery) -> None:
    task = fresh(app, 25)
    sending = Sending(task)
    sweep([task])
    assert len(sending.seen) == 25
    assert all(0 < each.seconds_left <= SENDING_SECONDS for each in sending.seen.values())
    assert all(each.seconds_left > QUEUED_SECONDS - 60 for each in sending.claims().values())
    assert {uuid: each.message_id for uuid, each in sending.seen.items()} == {
        uuid: each.message_id for uuid, each in sending.claims().items()
    }


def test_what_a_worker_has_taken_over_or_ended_meanwhile_is_left_alone(app: Celery) -> None:
    task = fresh(app, 30)
    ledger, stage = ledger_of(task), task.agent_stage.uuid
    ended: list[UUID] = []
    running: list[UUID] = []

    def work(message_id: str, uuids: list[UUID]) -> None:
        if not running:
            ledger.take_over(stage, message_id, uuids, 5)
            running.extend(uuids)
        elif not ended:
            token = ledger.take_over(stage, message_id, uuids, 5).token
            outcomes = [
                Settlement(TaskOutcome(task_uuid=uuid, outcome=Outcome.PROCEEDED), 1, None) for uuid in uuids
            ]
            ledger.settle(stage, message_id, token, outcomes, where="here", is_last=True)
            ended.extend(uuids)

    sending = Sending(task, work)
    sweep([task])

    left = sending.claims()
    assert len(left) == 20
    assert not left.keys() & set(ended)
    assert all(left[uuid].seconds_left <= 5 for uuid in running)


def test_what_cannot_be_sent_is_given_back(app: Celery) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no broker")

    task = fresh(app, 5)
    sending = Sending(task, fail)
    with pytest.raises(Exception, match="no broker"):
        sweep([task])
    assert len(sending.seen) == 5
    assert sending.claims() == {}


def test_a_claim_that_another_message_has_got_is_not_confirmed(app: Celery) -> None:
    task = fresh(app, 0)
    ledger, stage = ledger_of(task), task.agent_stage.uuid
    spec = (agent_task(1).uuid, "{}")
    (message,) = claim(ledger, stage, [[spec]], ttl=SENDING_SECONDS)
    ledger.claim(stage, {"another": [spec[0]]}, 10, force=True)
    confirm(ledger, stage, [message])
    confirm(ledger, stage, [])
    held = ledger.who_holds(stage, [spec[0]])[spec[0]]
    assert (held.message_id, held.seconds_left <= 10) == ("another", True)


def test_a_ledger_that_is_down_when_it_confirms_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where another test has set up logging for this whole process.
    for name, value in {"handlers": [caplog.handler], "disabled": False, "level": logging.INFO}.items():
        monkeypatch.setattr(claims.logger, name, value)
    down = Ledger("redis://127.0.0.1:1/0", UUID(int=1))
    confirm(down, UUID(int=2), [Outgoing("m", [(UUID(int=3), "{}")])])
    assert "a sweep may send their agent tasks once more" in caplog.text
    confirm(None, UUID(int=2), [])


def test_from_the_claim_until_it_was_told_of_nothing_interrupts(app: Celery) -> None:
    task = fresh(app, 5)
    sending = Sending(task)
    in_flight: list[int] = []
    left: list[float] = []
    told: list[SentMessage] = []

    @contextmanager
    def uninterrupted() -> Iterator[None]:
        in_flight.append(sending.ledger.in_flight(sending.stage))
        yield
        left.extend(each.seconds_left for each in sending.claims().values())
        assert told

    sweep([task], sending=uninterrupted, on_sent=told.append)
    assert in_flight == [0]
    assert len(left) == 5
    assert min(left) > SENDING_SECONDS
