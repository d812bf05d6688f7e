"""The message to ask about an agent task, which keeps its UUID from stage to stage and so may be known at several."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from celery import Celery

from celery_agents import AgentResult, QueueRunner, SetupError
from celery_agents.ledger import Ledger
from celery_agents.messages import Outcome, TaskOutcome
from celery_agents.sandbox import SandboxServer
from tests import servers

TTL = 600.0


@dataclass
class Site:
    """Agents at two stages, and what their ledger has been told of one agent task."""

    app: Celery
    runner: QueueRunner
    ledger: Ledger
    task_uuid: UUID
    data_hash: UUID

    def stage(self, title: str) -> UUID:
        return self.runner.gateway.agent_stage(title).uuid

    def send(self, title: str, message_id: str, *, is_taken: bool = False) -> None:
        """Claim the agent task at a stage, as a producer does, or as a worker that has begun."""
        self.ledger.claim(self.stage(title), {message_id: [self.task_uuid]}, TTL)
        if is_taken:
            self.ledger.take_over(self.stage(title), message_id, [self.task_uuid], TTL)

    def decide(self, title: str, message_id: str) -> None:
        token = self.ledger.take_over(self.stage(title), message_id, [self.task_uuid], TTL).token
        outcome = TaskOutcome(outcome=Outcome.PROCEEDED, task_uuid=self.task_uuid, data_hash=self.data_hash)
        self.ledger.settle(self.stage(title), message_id, token, [outcome], where="w@host", is_last=True)

    def told(self, uuid: UUID | None = None) -> str:
        return AgentResult.for_task(uuid or self.task_uuid, self.app).id


def declare(app: Celery, project_hash: str, *stages: str) -> QueueRunner:
    runner = QueueRunner(project_hash, app=app)
    for stage in stages:
        runner.stage(stage)(lambda: None)
    return runner


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=2) as server:
        yield server


@pytest.fixture
def site(app: Celery, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    runner = declare(app, sandbox.project_hash, "Pre-label", "Route")
    assert runner.ledger is not None
    return Site(app, runner, runner.ledger, uuid4(), uuid4())


@pytest.mark.parametrize("is_taken", [False, True], ids=["queued", "running"])
def test_decided_at_one_stage_and_in_flight_at_another(site: Site, is_taken: bool) -> None:
    site.decide("Pre-label", "first")
    assert site.told() == site.told(site.data_hash) == "first"
    site.send("Route", "second", is_taken=is_taken)
    assert site.told() == site.told(site.data_hash) == "second"
    site.decide("Route", "second")
    assert site.told() == site.told(site.data_hash) == "second"


def test_decided_at_both_and_sent_again_at_the_first(site: Site) -> None:
    site.decide("Pre-label", "first")
    site.decide("Route", "second")
    site.send("Pre-label", "third")
    assert site.told() == "third"


def test_of_two_messages_it_is_the_one_that_runs(site: Site) -> None:
    """Somebody has moved it by hand while its message waited: that one will find it GONE."""
    site.send("Route", "runs", is_taken=True)
    site.send("Pre-label", "waits")
    assert site.told() == "runs"


def test_a_stage_without_an_agent_here_counts_where_it_is_known_from_a_record(site: Site) -> None:
    site.decide("Route", "first")
    site.send("Route", "second")
    other = servers.make_app(site.app.conf.broker_url, site.app.conf.broker_url)
    declare(other, str(site.runner.project_hash), "Pre-label")
    assert AgentResult.for_task(site.task_uuid, other).id == "second"


def test_a_mistake_in_one_declaration_hides_no_other_stage(site: Site) -> None:
    app = servers.make_app(site.app.conf.broker_url, site.app.conf.broker_url)
    declare(app, str(site.runner.project_hash), "No such stage", "Route")
    site.send("Route", "first")
    assert AgentResult.for_task(site.task_uuid, app).id == "first"
    with pytest.raises(SetupError, match="No such stage"):
        AgentResult.for_task(uuid4(), app)


def test_without_encord_it_tells_what_is_decided_and_warns(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.decide("Pre-label", "first")
    monkeypatch.setenv("ENCORD_DOMAIN", f"http://127.0.0.1:{servers.free_port()}")
    app = servers.make_app(site.app.conf.broker_url, site.app.conf.broker_url)
    declare(app, str(site.runner.project_hash), "Pre-label", "Route")
    with caplog.at_level(logging.WARNING, "celery_agents"):
        assert AgentResult.for_task(site.task_uuid, app).id == "first"
    assert "What is in flight may be missing" in caplog.text
    with pytest.raises(Exception, match="127"):
        AgentResult.for_task(uuid4(), app)
