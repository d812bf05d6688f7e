"""What agents are declared with and may return; names and fields are those of encord-agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias
from uuid import UUID

from pydantic import BaseModel, model_validator

from celery_agents.frames import Frame
from celery_agents.messages import (
    Outcome,
    ProgressReport,
    TaskCompletionResult,
    TaskError,
    TaskOutcome,
    TaskSpec,
)
from celery_agents.status import Status

if TYPE_CHECKING:
    from encord.objects.ontology_labels_impl import LabelRowV2


class LabelRowMetadataIncludeArgs(BaseModel):
    """What to read along with label rows: arguments of ``Project.list_label_rows_v2``.

    Client metadata read this way is for reading; to write it, take the ``StorageItem``.
    """

    include_workflow_graph_node: bool = True
    include_client_metadata: bool = False
    include_images_data: bool = False
    include_all_label_branches: bool = False
    branch_name: str | None = None
    include_children: bool = False

    @model_validator(mode="after")
    def _one_way_to_choose_branches(self) -> LabelRowMetadataIncludeArgs:
        if self.branch_name and self.include_all_label_branches:
            raise ValueError("Ask for all label branches or for one branch_name, not for both.")
        return self


class LabelRowInitialiseLabelsArgs(BaseModel):
    """How to read labels: arguments of ``LabelRowV2.initialise_labels``.

    A label row that was read with a feature-hash filter loses the labels left out when it is saved.
    """

    include_object_feature_hashes: set[str] | None = None
    include_classification_feature_hashes: set[str] | None = None
    include_reviews: bool = False
    overwrite: bool = False
    include_signed_url: bool = False


@dataclass
class TaskAgentReturnStruct:
    """What an agent may return instead of a pathway: the writes in it are sent together with the batch's."""

    pathway: str | UUID | None = None  #: name or UUID; None leaves the agent task where it is
    label_row: LabelRowV2 | None = None  #: saved before the agent task moves
    label_row_priority: float | None = None  #: 0.0 to 1.0, set before the agent task moves


class ReturnStruct(Protocol):
    """What has the fields of a ``TaskAgentReturnStruct``, such as encord-agents' own, for type checkers."""

    @property
    def pathway(self) -> str | UUID | None: ...

    @property
    def label_row(self) -> LabelRowV2 | None: ...

    @property
    def label_row_priority(self) -> float | None: ...


TaskAgentReturnPathway: TypeAlias = "str | UUID | None"
TaskAgentReturnType: TypeAlias = "TaskAgentReturnPathway | ReturnStruct"
#: What an agent returns that is called with lists, and each other one.
Answers: TypeAlias = "TaskAgentReturnType | Sequence[TaskAgentReturnType | BaseException]"
AgentFunction: TypeAlias = "Callable[..., Answers] | Callable[..., Awaitable[Answers]]"

__all__ = [
    "Frame",
    "LabelRowInitialiseLabelsArgs",
    "LabelRowMetadataIncludeArgs",
    "Outcome",
    "ProgressReport",
    "Status",
    "TaskAgentReturnPathway",
    "TaskAgentReturnStruct",
    "TaskAgentReturnType",
    "TaskCompletionResult",
    "TaskError",
    "TaskOutcome",
    "TaskSpec",
]
