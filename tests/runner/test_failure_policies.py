"""Which messages Celery calls failed: the stage's ``failure_policy``. Traced by Celery itself, eagerly."""

from __future__ import annotations

import json

import pytest
from celery import Celery
from encord.workflow.stages.agent import AgentTask

from celery_agents import AgentTaskError, Outcome, QueueRunner, StageTask, TaskCompletionResult
from celery_agents.options import FailurePolicy
from celery_agents.sandbox import Fault, SandboxServer


def refusing_videos(sandbox: SandboxServer, app: Celery, policy: FailurePolicy) -> tuple[StageTask, str, str]:
    """Return an agent, the spec of an image, which it holds, and the spec of a video, which it refuses."""

    @QueueRunner(sandbox.project_hash, app=app).stage("Pre-label", failure_policy=policy, retry_jitter=False)
    def hold(task: AgentTask) -> None:
        if task.data_title.startswith("video"):
            raise ValueError("no videos")

    specs = {
        task.data_title.partition("-")[0]: task.model_dump_json() for task in hold.agent_stage.get_tasks()
    }
    return hold, specs["image"], specs["video"]


@pytest.mark.parametrize(("policy", "state"), [("any", "FAILURE"), ("all", "SUCCESS"), ("never", "SUCCESS")])
def test_where_one_of_two_failed(
    sandbox: SandboxServer, app: Celery, policy: FailurePolicy, state: str
) -> None:
    hold, image, video = refusing_videos(sandbox, app, policy)
    assert hold.apply([[image, video]]).state == state


@pytest.mark.parametrize(("policy", "state"), [("any", "FAILURE"), ("all", "FAILURE"), ("never", "SUCCESS")])
def test_where_all_failed(sandbox: SandboxServer, app: Celery, policy: FailurePolicy, state: str) -> None:
    hold, _, video = refusing_videos(sandbox, app, policy)
    assert hold.apply([[video, "{nonsense"]]).state == state


def test_one_that_is_gone_did_not_fail(sandbox: SandboxServer, app: Celery) -> None:
    hold, image, video = refusing_videos(sandbox, app, "all")
    sandbox.state.project(sandbox.project_hash).put(json.loads(image)["uuid"], "Archive")
    assert hold.apply([[image, video]]).state == "SUCCESS"


def test_nothing_to_do_is_no_failure(sandbox: SandboxServer, app: Celery) -> None:
    hold, _, _ = refusing_videos(sandbox, app, "all")
    assert hold.apply([[]]).state == "SUCCESS"


def test_a_failed_message_raises_what_carries_its_outcomes(sandbox: SandboxServer, app: Celery) -> None:
    hold, _, video = refusing_videos(sandbox, app, "all")
    with pytest.raises(
        AgentTaskError, match="1 of 1 agent tasks failed; the first with ValueError: no videos"
    ) as raised:
        hold.apply([video]).get()
    assert [each.outcome for each in raised.value.result.outcomes] == [Outcome.FAILED]
    assert (
        repr(raised.value)
        == "AgentTaskError('1 of 1 agent tasks failed; the first with ValueError: no videos')"
    )


def test_what_passes_is_retried_by_celery(sandbox: SandboxServer, app: Celery) -> None:
    """Eagerly too: Celery's retry runs the message again at once."""
    hold, image, video = refusing_videos(sandbox, app, "all")
    sandbox.faults.add(Fault(call="tasks.list", nth=(1,), status=503))
    result = TaskCompletionResult.model_validate_json(hold.apply([[image, video]]).get())
    assert {each.outcome for each in result.outcomes} == {Outcome.HELD, Outcome.FAILED}
