"""What goes over HTTP, for OpenAPI: what is asked for, and what is answered.

Answers are what ``Snapshot.as_dict`` and its likes give; these models describe them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from celery_agents.messages import TaskError, TaskOutcome
from celery_agents.status import Status

_SPEC: dict[str, Any] = {
    "uuid": "6f0c8c0e-0d0a-4f0e-9a53-0d9cbb1c5f4e",
    "data_hash": "0d9c6a1e-7a3b-4a53-8f39-90e1c9b8e6a2",
    "data_title": "street.jpg",
    "label_branch_name": "main",
}
_ID = "e2b7a6de-6c0f-4cbb-8d0c-2f5b7b1f5f0a"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StageDocument(_Document):
    """A stage that has an agent here."""

    stage: str = Field(description="Title or UUID, as declared.")
    project_hash: UUID
    task: str = Field(description="Name of the Celery task.")
    queue: str


class SpecRequest(_Document):
    """One agent task for the agent of a stage."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"stage": "Pre-label", "spec": _SPEC}]}
    )

    stage: str = Field(description="The stage's title or UUID, as declared.")
    spec: dict[str, Any] | str = Field(
        description="What `AgentTask.model_dump_json()` gives: the object, or its text."
    )
    project_hash: UUID | None = Field(
        None, description="Needed where several projects have a stage of that title."
    )
    force: bool = Field(default=False, description="Send it also where another message has the agent task.")


class SweepRequest(_Document):
    """Everything that waits at a stage."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"stage": "Pre-label"}]})

    stage: str = Field(description="The stage's title or UUID, as declared.")
    project_hash: UUID | None = Field(
        None, description="Needed where several projects have a stage of that title."
    )


class ProgressDocument(BaseModel):
    """How far a message is."""

    model_config = ConfigDict(extra="allow")

    done: int
    failed: int
    total: int = Field(description="0 where nobody has said how many agent tasks the message carries.")
    text: str | None = None
    at: datetime | None = None


class MessageDocument(_Document):
    """What is known of a message."""

    id: str = Field(examples=[_ID])
    state: str = Field(description="Celery's state.", examples=["SUCCESS"])
    status: Status
    progress: ProgressDocument | None
    counts: dict[str, int] = Field(
        description="How many agent tasks had which outcome.", examples=[{"PROCEEDED": 1}]
    )
    detail: str | None = Field(
        description="Why it failed, was cancelled or goes round again, in one sentence."
    )
    outcomes: list[TaskOutcome] | None = Field(description="What is decided; null where nothing is.")
    errors: dict[str, TaskError] = Field(description="Why agent tasks FAILED, by their UUID.")


class AgentTaskDocument(_Document):
    """What is known of an agent task."""

    id: UUID = Field(description="As it was asked for: the agent task's UUID, or its data unit's.")
    message: MessageDocument = Field(
        description="The message that has it, or else the one that decided about it last."
    )
    outcome: TaskOutcome | None = Field(
        description="What became of it last, also after the message's result expired."
    )
    decided_at: datetime | None
    decided_by: str | None = Field(description="The id of the message in which that was.")


class SweepDocument(_Document):
    """What is known of a sweep."""

    id: str = Field(examples=[_ID])
    status: Status
    detail: str | None = Field(description="Why it failed, in one sentence.")
    report: dict[str, Any] | None = Field(
        description="What was sent and left out, the ids of the messages, and the sweep that goes on with the rest.",
        examples=[
            {
                "sent": [{"stage": "Pre-label", "agent_tasks": 200, "messages": 2}],
                "left_out": [],
                "ids": [_ID],
            }
        ],
    )


class AskedDocument(_Document):
    """A sweep that was asked for."""

    id: str = Field(examples=[_ID])
    is_new: bool = Field(description="False where the same sweep waited in its queue already.")


class HeardDocument(_Document):
    """What a notification of Encord's has led to."""

    status: str = Field(description="`asked`: the stage will be swept; `ignored`: it is none of ours.")
    detail: str
    sweep: str | None = Field(None, description="The id of the sweep.")
