"""A sandbox project, and the executor run on it directly: no Celery, no broker, the real SDK over HTTP."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage

from celery_agents.agent import Agent
from celery_agents.batch import Batch, Execution
from celery_agents.delivery import Delivery
from celery_agents.dependencies.plan import plan
from celery_agents.executor import execute
from celery_agents.gateway.client import requests_settings
from celery_agents.gateway.project import Gateway
from celery_agents.messages import Carry, TaskOutcome
from celery_agents.providers import PROVIDERS
from celery_agents.retries import RetryPolicy
from celery_agents.sandbox import Project, SandboxServer
from celery_agents.watch import Unwatched, Watch

STAGE = "Pre-label"
FORWARD = "labelled"


class StoppedWhen(Unwatched):
    """Stops as soon as something holds."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds

    def is_stopping(self) -> bool:
        return self._holds()


@dataclass
class Bench:
    """What a test works with: the sandbox, a gateway to it, and the specs that wait at the first stage."""

    sandbox: SandboxServer
    gateway: Gateway
    stage: AgentStage
    specs: list[str]

    def execute(
        self,
        function: Callable[..., Any],
        specs: Sequence[object] | None = None,
        *,
        carry: Carry | None = None,
        report: Callable[[int, int], None] = lambda done, failed: None,
        delivery: Delivery | None = None,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> Execution:
        options.setdefault("retry", RetryPolicy(retry_jitter=False))
        agent = Agent(stage=STAGE, plan=plan(function, PROVIDERS.keys()), **options)
        batch = Batch(self.specs if specs is None else specs, carry or Carry())
        return execute(batch, agent, self.gateway, report, delivery=delivery, watch=watch, clock=clock)

    def again(self, function: Callable[..., Any], execution: Execution, **options: Any) -> Execution:
        """Run the next attempt of what *execution* left over."""
        return self.execute(function, execution.again, carry=execution.carry, **options)

    def calls_of(self, work: Callable[[], object]) -> dict[str, int]:
        """Return how often each call was made by *work*."""
        before = Counter(self.sandbox.calls)
        work()
        return dict(Counter(self.sandbox.calls) - before)

    def moves(self) -> Counter[str]:
        """Return how often each agent task has been moved, by anybody's accepted request."""
        return self.sandbox.audit.moves()

    def where(self, outcome: TaskOutcome) -> str:
        """Return the title of the stage at which an agent task is."""
        return self.project.stage_of(str(outcome.task_uuid))

    @property
    def project(self) -> Project:
        """The sandbox's side of the project."""
        return self.sandbox.state.project(self.sandbox.project_hash)


def open_bench(sandbox: SandboxServer, *, keep_connections: bool = True) -> Bench:
    """Open the sandbox's project with the SDK and list what waits at its first stage."""
    client = EncordUserClient.create_with_ssh_private_key(
        sandbox.private_key, domain=sandbox.url, requests_settings=requests_settings()
    )
    gateway = Gateway(UUID(sandbox.project_hash), client, keep_connections=keep_connections)
    stage = gateway.agent_stage(STAGE)
    return Bench(sandbox, gateway, stage, [task.model_dump_json() for task in gateway.list_tasks(stage)])


@pytest.fixture
def bench() -> Iterator[Bench]:
    with SandboxServer.start(tasks=10, seed=7) as sandbox:
        yield open_bench(sandbox)
