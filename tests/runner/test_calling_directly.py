"""The decorated function called with JSON specs: the contract of encord-agents' ``QueueRunner``."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import Outcome, QueueRunner, SetupError, StageTask, TaskCompletionResult
from celery_agents.sandbox import Fault, SandboxServer


@pytest.fixture
def runner(sandbox: SandboxServer, app: Celery) -> QueueRunner:
    return QueueRunner(sandbox.project_hash, app=app)


@pytest.fixture
def pre_label(runner: QueueRunner) -> StageTask:
    @runner.stage("Pre-label")
    def pre_label(task: AgentTask) -> str:
        if task.data_title.startswith("video"):
            raise ValueError("no videos")
        return "labelled"

    return pre_label


def waiting(runner: QueueRunner) -> dict[str, str]:
    (stage,) = runner.get_agent_stages()
    return {task.data_title: task.model_dump_json() for task in stage.get_tasks()}


def an_image(specs: dict[str, str]) -> str:
    return next(spec for title, spec in specs.items() if title.startswith("image-"))


def a_video(specs: dict[str, str]) -> str:
    return next(spec for title, spec in specs.items() if title.startswith("video"))


def test_one_spec_gives_scalars(runner: QueueRunner, pre_label: StageTask) -> None:
    spec = an_image(waiting(runner))
    result = json.loads(pre_label(spec))
    pathway = next(each for each in pre_label.agent_stage.pathways if each.name == "labelled")
    outcomes = result.pop("outcomes")
    assert result == {
        "task_uuid": json.loads(spec)["uuid"],
        "stage_uuid": str(pre_label.agent_stage.uuid),
        "success": True,
        "pathway": str(pathway.uuid),
        "error": None,
    }
    assert [each["outcome"] for each in outcomes] == ["PROCEEDED"]


def test_many_specs_give_lists(runner: QueueRunner, pre_label: StageTask) -> None:
    specs = waiting(runner)
    result = TaskCompletionResult.model_validate_json(pre_label(list(specs.values())))
    failed = [each for each in result.outcomes if each.outcome is Outcome.FAILED]
    assert isinstance(result.task_uuid, list)
    assert [str(uuid) for uuid in result.task_uuid] == [json.loads(spec)["uuid"] for spec in specs.values()]
    assert len(result.success) == len(result.pathway) == 10 - len(failed)  # type: ignore[arg-type]
    assert {each.data_title for each in failed} == {title for title in specs if title.startswith("video")}
    assert "ValueError: no videos" in (result.error or "")


def test_a_failure_gives_its_traceback(runner: QueueRunner, pre_label: StageTask) -> None:
    result = TaskCompletionResult.model_validate_json(pre_label(a_video(waiting(runner))))
    assert (result.success, result.pathway) == (False, None)
    assert "Traceback" in (result.error or "")
    assert "ValueError: no videos" in (result.error or "")


def test_one_that_has_left_is_no_success_and_no_error(
    sandbox: SandboxServer, runner: QueueRunner, pre_label: StageTask
) -> None:
    spec = an_image(waiting(runner))
    sandbox.state.project(sandbox.project_hash).put(json.loads(spec)["uuid"], "Archive")
    result = TaskCompletionResult.model_validate_json(pre_label(spec))
    assert (result.success, result.pathway, result.error) == (False, None, None)
    assert [each.outcome for each in result.outcomes] == [Outcome.GONE]


def test_an_unreadable_spec_is_an_answer_too(pre_label: StageTask) -> None:
    result = TaskCompletionResult.model_validate_json(pre_label("{nonsense"))
    assert (result.task_uuid, result.success) == (None, False)
    assert "Not a task spec" in (result.error or "")
    assert result.outcomes[0].spec == "{nonsense"


def test_an_empty_list_is_an_empty_answer(pre_label: StageTask) -> None:
    result = TaskCompletionResult.model_validate_json(pre_label([]))
    assert (result.task_uuid, result.success, result.pathway, result.error) == ([], [], [], None)


def test_trouble_that_passes_is_waited_for(
    sandbox: SandboxServer, runner: QueueRunner, pre_label: StageTask
) -> None:
    specs = list(waiting(runner).values())
    sandbox.faults.add(Fault(call="tasks.actions", nth=(1,), status=503))
    result = TaskCompletionResult.model_validate_json(pre_label(specs))
    kinds = Counter(each.outcome for each in result.outcomes)
    assert kinds[Outcome.PROCEEDED] + kinds[Outcome.FAILED] == 10
    assert kinds[Outcome.PROCEEDED] == sum(sandbox.audit.moves().values()) > 5


def test_trouble_that_lasts_is_not_waited_for_for_ever(
    sandbox: SandboxServer, runner: QueueRunner, pre_label: StageTask
) -> None:
    spec = an_image(waiting(runner))
    sandbox.faults.add(Fault(call="tasks.actions", status=429, retry_after="3600"))
    result = TaskCompletionResult.model_validate_json(pre_label(spec))
    assert result.success is False
    assert "RateLimitExceededError" in (result.error or "")
    assert result.outcomes[0].error is not None
    assert result.outcomes[0].error.transient


def test_get_agent_stages_yields_those_with_an_agent(runner: QueueRunner, pre_label: StageTask) -> None:
    assert [stage.title for stage in runner.get_agent_stages()] == ["Pre-label"]


def test_a_stage_that_the_project_does_not_have(runner: QueueRunner) -> None:
    task = runner.stage("Pre-lable")(lambda: None)
    with pytest.raises(SetupError, match="no agent stage 'Pre-lable'; did you mean 'Pre-label'"):
        task.agent_stage  # noqa: B018  (reading it resolves it)


def test_no_key(monkeypatch: pytest.MonkeyPatch, runner: QueueRunner, pre_label: StageTask) -> None:
    monkeypatch.delenv("ENCORD_SSH_KEY")
    with pytest.raises(SetupError, match="No Encord key: set ENCORD_SSH_KEY_FILE"):
        pre_label.agent_stage  # noqa: B018


def test_a_key_that_is_none_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, runner: QueueRunner, pre_label: StageTask
) -> None:
    monkeypatch.setenv("ENCORD_SSH_KEY", "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    with pytest.raises(SetupError, match="private key in ENCORD_SSH_KEY cannot be read") as refusal:
        pre_label.agent_stage  # noqa: B018
    assert "secret" not in str(refusal.value)
