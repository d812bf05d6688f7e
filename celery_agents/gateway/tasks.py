"""Agent tasks one way and moves the other: what is done for each agent task, without the cost of the SDK's models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast
from uuid import UUID

from encord.issues.issue_client import TaskIssues
from encord.workflow.common import WorkflowAction
from encord.workflow.stages.agent import AgentStage, AgentTask, AgentTaskStatus

from celery_agents.gateway.listing import Listed
from celery_agents.messages import TaskSpec

#: Has what this SDK gives to agent tasks by default.
_BLANK = AgentTask.model_construct()  # type: ignore[call-arg]  # see agent_task
_DEFAULTS, _PRIVATE = vars(_BLANK), _BLANK.__pydantic_private__ or {}
_STATUSES = {each.value: each for each in AgentTaskStatus}
_put = object.__setattr__


def agent_task(known: TaskSpec | Listed, stage: AgentStage) -> AgentTask:
    """Return the agent task of which this is known, able to ``proceed`` like one from ``get_tasks``."""
    task = AgentTask.__new__(AgentTask)
    fields = vars(known) if isinstance(known, Listed) else _fields(known)
    # All that an instance of a pydantic model has, see "BaseModel" in pydantic's reference. What was validated as a
    # spec needs no validation, and pydantic's ways to do without take more than twice as long as this.
    _put(task, "__dict__", {**_DEFAULTS, **fields, "status": _status(known.status)})
    _put(task, "__pydantic_fields_set__", set(fields))
    _put(task, "__pydantic_extra__", None)
    _put(task, "__pydantic_private__", {**_PRIVATE, **_surroundings(known.data_hash, stage)})
    return task


def _fields(spec: TaskSpec) -> dict[str, Any]:
    return {
        "uuid": spec.uuid,
        "created_at": spec.created_at,
        "updated_at": spec.updated_at,
        "status": spec.status,
        "data_hash": spec.data_hash,
        "data_title": spec.data_title,
        "label_branch_name": spec.label_branch_name,
        "assignee": spec.assignee,
        "last_actioned_by": spec.last_actioned_by,
    }


def _status(told: str | None) -> AgentTaskStatus:
    """Return a status. The SDK makes UNKNOWN of what it does not know; before it could, that stays as it was told."""
    if told in _STATUSES:
        return _STATUSES[told]
    try:
        return AgentTaskStatus(told)
    except ValueError:
        return cast("AgentTaskStatus", told)


def _surroundings(data_hash: UUID, stage: AgentStage) -> dict[str, Any]:
    """Return what ``AgentStage.get_tasks`` sets on each task that it yields."""
    client = stage._workflow_client
    issues = TaskIssues(api_client=client.api_client, project_uuid=client.project_hash, data_uuid=data_hash)
    return {"_stage_uuid": stage.uuid, "_workflow_client": client, "_task_issues": issues}


class _Move(NamedTuple):
    """One move along a pathway, as ``_ActionPathway`` of ``encord.workflow.stages.agent`` is written."""

    task_uuid: UUID
    pathway_uuid: str

    def to_dict(self) -> dict[str, str]:
        """Return what is sent."""
        return {
            "action": "PATHWAY_ACTION",
            "taskUuid": str(self.task_uuid),
            "pathwayUuid": self.pathway_uuid,
        }


def move(stage: AgentStage, moves: Iterable[tuple[UUID, UUID]]) -> None:
    """Move agent tasks from *stage* along pathways with one request, all or nothing.

    Without the SDK's ``Bundle``, which copies each action deeply.

    Args:
        stage: Where they are.
        moves: UUIDs of agent tasks, each with that of its pathway.
    """
    actions: list[_Move] = []
    latest, written = None, ""
    for task_uuid, pathway_uuid in moves:
        if pathway_uuid is not latest:  # nearly all go the same way
            latest, written = pathway_uuid, str(pathway_uuid)
        actions.append(_Move(task_uuid, written))
    stage._workflow_client._action(stage.uuid, cast("list[WorkflowAction]", actions))
