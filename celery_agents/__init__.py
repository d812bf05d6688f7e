"""Run Encord workflow agents at scale on Celery.

Names are imported when first used: Celery loads this package, for its command line, at every invocation of ``celery``,
and must not pay for an SDK that it does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from celery_agents._version import __version__

if TYPE_CHECKING:
    from encord.objects.ontology_labels_impl import LabelRowV2
    from encord.storage import StorageItem
    from encord.workflow.stages.agent import AgentStage, AgentTask

    from celery_agents.dependencies import Depends
    from celery_agents.errors import (
        AgentsError,
        AgentTaskError,
        AnswerError,
        Cancelled,
        DeclarationError,
        DownloadError,
        ExpiredError,
        ResultNotReadyError,
        SetupError,
        SpecError,
    )
    from celery_agents.frames import Frame
    from celery_agents.groups import AgentGroupResult
    from celery_agents.messages import (
        Outcome,
        ProgressReport,
        TaskCompletionResult,
        TaskError,
        TaskOutcome,
        TaskProgress,
        TaskSpec,
    )
    from celery_agents.models import (
        LabelRowInitialiseLabelsArgs,
        LabelRowMetadataIncludeArgs,
        TaskAgentReturnStruct,
    )
    from celery_agents.policies import ExecutionPolicy
    from celery_agents.producer.filters import TaskFilters
    from celery_agents.progress import Progress
    from celery_agents.results import AgentResult
    from celery_agents.runner import QueueRunner
    from celery_agents.sequential import Runner, RunSummary, SequentialRunner
    from celery_agents.status import Status
    from celery_agents.task import StageTask

_HOMES = {
    "celery_agents.dependencies": ("Depends",),
    "celery_agents.errors": (
        "AgentTaskError",
        "AgentsError",
        "AnswerError",
        "Cancelled",
        "DeclarationError",
        "DownloadError",
        "ExpiredError",
        "ResultNotReadyError",
        "SetupError",
        "SpecError",
    ),
    "celery_agents.frames": ("Frame",),
    "celery_agents.groups": ("AgentGroupResult",),
    "celery_agents.messages": (
        "Outcome",
        "ProgressReport",
        "TaskCompletionResult",
        "TaskError",
        "TaskOutcome",
        "TaskProgress",
        "TaskSpec",
    ),
    "celery_agents.models": (
        "LabelRowInitialiseLabelsArgs",
        "LabelRowMetadataIncludeArgs",
        "TaskAgentReturnStruct",
    ),
    "celery_agents.policies": ("ExecutionPolicy",),
    "celery_agents.producer.filters": ("TaskFilters",),
    "celery_agents.progress": ("Progress",),
    "celery_agents.results": ("AgentResult",),
    "celery_agents.runner": ("QueueRunner",),
    "celery_agents.sequential": ("RunSummary", "Runner", "SequentialRunner"),
    "celery_agents.status": ("Status",),
    "celery_agents.task": ("StageTask",),
    # The SDK's types that nearly every agent takes, so that one import line is enough.
    "encord.objects.ontology_labels_impl": ("LabelRowV2",),
    "encord.storage": ("StorageItem",),
    "encord.workflow.stages.agent": ("AgentStage", "AgentTask"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AgentGroupResult",
    "AgentResult",
    "AgentStage",
    "AgentTask",
    "AgentTaskError",
    "AgentsError",
    "AnswerError",
    "Cancelled",
    "DeclarationError",
    "Depends",
    "DownloadError",
    "ExecutionPolicy",
    "ExpiredError",
    "Frame",
    "LabelRowInitialiseLabelsArgs",
    "LabelRowMetadataIncludeArgs",
    "LabelRowV2",
    "Outcome",
    "Progress",
    "ProgressReport",
    "QueueRunner",
    "ResultNotReadyError",
    "RunSummary",
    "Runner",
    "SequentialRunner",
    "SetupError",
    "SpecError",
    "StageTask",
    "Status",
    "StorageItem",
    "TaskAgentReturnStruct",
    "TaskCompletionResult",
    "TaskError",
    "TaskFilters",
    "TaskOutcome",
    "TaskProgress",
    "TaskSpec",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value  # so that this function is asked once per name
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
