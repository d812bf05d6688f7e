"""A direct call from many threads at once: one gateway, agents side by side, each agent task its own outcome."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import (
    Outcome,
    Progress,
    QueueRunner,
    TaskAgentReturnStruct,
    TaskCompletionResult,
    TaskSpec,
)
from celery_agents.sandbox import Project, SandboxServer
from tests.sequential.conftest import FORWARD, STAGE

THREADS = 8


def runner_for(sandbox: SandboxServer) -> QueueRunner:
    app = Celery("threads", broker="memory://", backend="cache+memory://", set_as_current=False)
    return QueueRunner(sandbox.project_hash, app=app)


def called(call: Callable[[str], str], specs: list[str]) -> list[TaskCompletionResult]:
    """Call for each spec from threads that begin at one time."""
    together = threading.Barrier(THREADS, timeout=60)
    with ThreadPoolExecutor(THREADS, initializer=together.wait) as pool:
        return [TaskCompletionResult.model_validate_json(each) for each in pool.map(call, specs)]


def specs_of(sandbox: SandboxServer) -> list[str]:
    gateway = runner_for(sandbox).gateway
    return [task.model_dump_json() for task in gateway.list_tasks(gateway.agent_stage(STAGE))]


def test_the_very_first_calls_may_come_at_once() -> None:
    # Celery makes a task when it is first used, and registers it before it is complete.
    for _ in range(50):
        runner = QueueRunner(uuid.uuid4(), app=Celery("threads", broker="memory://", set_as_current=False))
        agent = runner.stage(STAGE)(lambda: FORWARD)
        results = called(lambda _, agent=agent: agent([]), [""] * THREADS)  # type: ignore[misc]
        assert [result.outcomes for result in results] == [[]] * THREADS


def test_the_project_is_opened_once_and_labels_go_to_their_own_rows(
    sandbox: SandboxServer, project: Project
) -> None:
    specs, runner = specs_of(sandbox), runner_for(sandbox)

    @runner.stage(STAGE)
    def agent(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct | None:
        assert str(task.data_hash) == label_row.data_hash
        if task.data_title.endswith(".pdf"):
            raise ValueError("no PDFs")
        return TaskAgentReturnStruct(FORWARD, label_row)

    opened = sandbox.calls["projects.get"]
    results = called(agent, specs)

    assert sandbox.calls["projects.get"] == opened + 1
    assert [result.task_uuid for result in results] == [TaskSpec.decode(spec).uuid for spec in specs]
    kinds = Counter(result.outcomes[0].outcome for result in results)
    assert kinds == {
        Outcome.FAILED: project.count_at(STAGE),
        Outcome.PROCEEDED: sum(sandbox.audit.moves().values()),
    }
    assert set(sandbox.audit.moves().values()) == {1}


def test_agents_run_side_by_side(sandbox: SandboxServer) -> None:
    specs, runner = specs_of(sandbox)[: 2 * THREADS], runner_for(sandbox)
    all_at_once = threading.Barrier(THREADS, timeout=60)

    @runner.stage(STAGE)
    def agent() -> str:
        all_at_once.wait()  # nobody goes on before as many are here as there are threads
        return FORWARD

    assert all(result.success is True for result in called(agent, specs))


def test_a_soft_time_limit_reaches_an_agent_that_tells_of_its_progress(sandbox: SandboxServer) -> None:
    specs, runner = specs_of(sandbox)[:THREADS], runner_for(sandbox)

    @runner.stage(STAGE, soft_time_limit=0.1)
    def agent(progress: Progress) -> str:
        while True:
            progress.update(1, 2)

    for result in called(agent, specs):
        assert "soft_time_limit of 0.1 s" in str(result.error)
