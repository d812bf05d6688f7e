"""Declaring agents that are called in other ways, calling them directly, and warming what they keep."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

import pytest
from celery import Celery
from encord.project import Project
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage, AgentTask

from celery_agents import DeclarationError, Depends, Outcome, QueueRunner, TaskCompletionResult
from celery_agents.sandbox import SandboxServer
from celery_agents.worker.resources import warm
from tests.runner.conftest import app, sandbox

__all__ = ["app", "sandbox"]


def test_an_agent_is_called_directly_in_each_way(app: Celery, sandbox: SandboxServer) -> None:
    """And bound to its task, which comes first."""
    runner = QueueRunner(sandbox.project_hash, app=app)
    seen: list[Any] = []

    @runner.stage("Pre-label", bind=True)
    async def pre_label(self: Any, task: AgentTask) -> str:
        await asyncio.sleep(0)
        seen.append(self.name)
        return "labelled"

    @runner.stage("Route", bind=True, batched=True)
    def route(self: Any, tasks: list[AgentTask], project: Project) -> list[str]:
        seen.append((self.name, len(tasks)))
        return ["small"] * len(tasks)

    for task in runner.stage_tasks:
        specs = [each.model_dump_json() for each in runner.gateway.list_tasks(task.agent_stage)]
        result = TaskCompletionResult.model_validate_json(task(specs))
        assert Counter(each.outcome for each in result.outcomes or ()) == {Outcome.PROCEEDED: 10}
    assert Counter(seen) == {pre_label.name: 10, (route.name, 10): 1}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 0}, "concurrency=0: give a number of agent tasks, 1 or more."),
        ({"concurrency": "16"}, "concurrency='16': give a number"),
        ({"batched": 32}, "batched=32: give a value of type bool."),
        ({"list_size": 32}, "list_size=32 is for an agent that is called with lists: add batched=True."),
        ({"batched": True, "list_size": 101}, "list_size=101: a list has 100 agent tasks at most"),
        ({"batched": True, "list_size": True}, "list_size=True: give a number"),
        (
            {"batched": True},
            "is called with lists .batched=True., but its parameter 'task: .*AgentTask' is not one",
        ),
    ],
)
def test_what_cannot_be_is_refused(app: Celery, options: dict[str, Any], complaint: str) -> None:
    runner = QueueRunner("5d1f6f0e-6c3b-4b52-8c7f-0d4f5b2f3d11", app=app)

    def agent(task: AgentTask) -> None: ...

    with pytest.raises(DeclarationError, match=complaint):
        runner.stage("Pre-label", **options)(agent)


def test_what_is_warm_is_loaded_before_any_message(
    app: Celery, sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be loaded is told, and is tried again by the first agent task."""
    runner = QueueRunner(sandbox.project_hash, app=app)
    loaded: list[str] = []

    def load_model(project: Project, client: EncordUserClient, stage: AgentStage) -> str:
        loaded.append(f"{project.title}/{stage.title}")
        return loaded[-1]

    def load_later() -> str:
        loaded.append("later")
        if loaded.count("later") == 1:
            raise ConnectionError("the model store is away")
        return "later"

    def load_cold() -> str:
        loaded.append("cold")
        return "cold"

    @runner.stage("Pre-label")
    def pre_label(
        model: Annotated[str, Depends(load_model, scope="worker", warm=True)],
        later: Annotated[str, Depends(load_later, scope="worker", warm=True)],
        cold: Annotated[str, Depends(load_cold, scope="worker")],
    ) -> str:
        return "labelled"

    warm(app)
    warm_ones = list(loaded)
    assert warm_ones[0].endswith("/Pre-label")
    assert warm_ones[1:] == ["later"]
    assert "load_later could not be loaded yet (ConnectionError: the model store is away)" in caplog.text
    specs = [each.model_dump_json() for each in runner.gateway.list_tasks(pre_label.agent_stage)]
    result = TaskCompletionResult.model_validate_json(pre_label(specs))
    assert Counter(each.outcome for each in result.outcomes or ()) == {Outcome.PROCEEDED: 10}
    assert loaded == [*warm_ones, "later", "cold"]


def test_what_a_worker_does_not_consume_is_not_loaded_in_it(app: Celery) -> None:
    runner = QueueRunner("5d1f6f0e-6c3b-4b52-8c7f-0d4f5b2f3d11", app=app)
    loaded: list[str] = []

    def load_model() -> None:
        loaded.append("model")

    @runner.stage("Pre-label", queue="gpu")
    def pre_label(model: Annotated[None, Depends(load_model, scope="worker", warm=True)]) -> None: ...

    app.amqp.queues.select(["celery"])
    warm(app)
    assert loaded == []
    app.amqp.queues.select(["celery", "gpu"])
    warm(app)
    assert loaded == ["model"]
