"""``task_always_eager`` and ``apply()``: messages are executed where they are sent, by Celery's own tracer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery, chain, chord
from encord.workflow.stages.agent import AgentTask

from celery_agents import (
    AgentResult,
    AgentTaskError,
    Outcome,
    QueueRunner,
    StageTask,
    Status,
    TaskCompletionResult,
)
from celery_agents.sandbox import Fault, SandboxServer


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=10) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def app() -> Celery:
    """An app that has no broker, as in a user's unit tests."""
    app = Celery("eager", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True
    return app


@pytest.fixture
def runner(app: Celery, sandbox: SandboxServer) -> QueueRunner:
    return QueueRunner(sandbox.project_hash, app=app)


@pytest.fixture
def pre_label(runner: QueueRunner) -> StageTask:
    @runner.stage("Pre-label", retry_backoff=False, default_retry_delay=0)
    def pre_label(task: AgentTask) -> str:
        if task.data_title.startswith("video"):
            raise ValueError("no videos")
        return "labelled"

    return pre_label


@pytest.fixture
def specs(runner: QueueRunner, pre_label: StageTask) -> dict[str, str]:
    """Return what waits: of each kind of data unit the last one."""
    tasks = runner.gateway.list_tasks(pre_label.agent_stage)
    return {task.data_title.partition("-")[0]: task.model_dump_json() for task in tasks}


def test_delay_has_ended_when_it_returns(
    pre_label: StageTask, specs: dict[str, str], sandbox: SandboxServer
) -> None:
    sent = pre_label.delay([specs["image"], specs["video"]])
    assert sent.ready()
    result = AgentResult(sent)
    assert result.status is Status.PARTIAL
    assert [each.outcome for each in result.outcomes] == [Outcome.PROCEEDED, Outcome.FAILED]
    assert sum(sandbox.audit.moves().values()) == 1


def test_a_failure_is_in_the_result(pre_label: StageTask, specs: dict[str, str]) -> None:
    sent = pre_label.delay(specs["video"])
    assert sent.state == "FAILURE"
    with pytest.raises(AgentTaskError, match="no videos"):
        sent.get()


def test_a_failure_is_raised_where_eager_tasks_propagate(
    app: Celery, pre_label: StageTask, specs: dict[str, str]
) -> None:
    app.conf.task_eager_propagates = True
    with pytest.raises(AgentTaskError, match="no videos") as raised:
        pre_label.delay(specs["video"])
    assert [each.outcome for each in raised.value.result.outcomes] == [Outcome.FAILED]


@pytest.mark.parametrize("propagates", [False, True])
def test_what_passes_is_tried_again(
    app: Celery, sandbox: SandboxServer, pre_label: StageTask, specs: dict[str, str], propagates: bool
) -> None:
    app.conf.task_eager_propagates = propagates
    sandbox.faults.add(Fault(call="tasks.actions", times=2, status=503))
    result = TaskCompletionResult.model_validate_json(pre_label.delay(specs["image"]).get())
    assert [each.outcome for each in result.outcomes] == [Outcome.PROCEEDED]
    assert len(sandbox.audit.records("tasks.actions", accepted=True)) == 1


def test_apply_is_eager_without_any_setting(app: Celery, pre_label: StageTask, specs: dict[str, str]) -> None:
    app.conf.task_always_eager = False
    assert pre_label.apply([specs["image"]]).state == "SUCCESS"
    with pytest.raises(AgentTaskError):
        pre_label.apply([specs["video"]], throw=True)


def test_a_sweep_is_eager_too(runner: QueueRunner, pre_label: StageTask) -> None:
    group = runner.enqueue("Pre-label", batch_size=4)
    assert len(group) == 3
    assert group.counts[Outcome.PROCEEDED] + group.counts[Outcome.FAILED] == 10


def test_chains_and_chords_are_eager_too(app: Celery, pre_label: StageTask, specs: dict[str, str]) -> None:
    @app.task(name="count", shared=False)  # type: ignore[untyped-decorator]  # celery ships no types
    def count(results: str | list[str]) -> int:
        return (
            len(results)
            if isinstance(results, list)
            else len(TaskCompletionResult.model_validate_json(results).outcomes)
        )

    assert chain(pre_label.s([specs["image"], specs["video"]]), count.s()).delay().get() == 2
    assert chord([pre_label.s(specs["audio"]), pre_label.s(specs["pdf"])])(count.s()).get() == 2


def test_one_stage_after_the_other_in_a_chain(
    runner: QueueRunner, pre_label: StageTask, specs: dict[str, str], sandbox: SandboxServer
) -> None:
    route = runner.stage("Route")(lambda: "small")
    chain(pre_label.si(specs["image"]), route.si(specs["image"])).delay()
    assert list(sandbox.audit.moves().values()) == [2]


def test_a_bound_agent_has_its_request(runner: QueueRunner, specs: dict[str, str]) -> None:
    seen = []

    @runner.stage("Route", bind=True)
    def route(self: StageTask, task: AgentTask) -> None:
        seen.append((self.name, self.request.id, self.request.is_eager))

    route.apply([specs["image"]], task_id="its-id")
    assert seen == []  # it is at another stage
    runner.task_for("Pre-label").apply([specs["image"]])
    route.apply([specs["image"]], task_id="its-id")
    route(specs["image"])
    assert seen == [(route.name, "its-id", True), (route.name, None, False)]
