"""What an agent writes by itself goes into its bundle, and so is sent at the commit: ``deferred_saves=True``.

The SDK's methods that take ``bundle=`` send at once where they are given none. The label row and the agent task that an
agent was given fall back on the bundle of that agent task instead. Nothing else in the process notices.
"""

from __future__ import annotations

from typing import Any

from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.common import WorkflowClient
from encord.workflow.stages.agent import AgentTask

from celery_agents.gateway.staging import StagedBundle


def defer_row(row: LabelRowV2, staged: StagedBundle) -> None:
    """Have what *row* writes put into *staged*, unless the call names a bundle."""
    # Its class, and not functions in its attributes: what is copied from it would save it instead of the copy.
    row.__class__ = _DeferredRow
    vars(row)["_staged"] = staged


def defer_task(task: AgentTask, staged: StagedBundle) -> None:
    """Have ``proceed`` and ``move`` of *task* put into *staged*: a move must not overtake the saves before it."""
    client = task._workflow_client
    if client is not None:
        task._workflow_client = _DeferredMoves(client.api_client, client.project_hash, staged)


class _DeferredRow(LabelRowV2):
    """A label row whose writes wait. The further arguments are for the SDK; which there are depends on its version."""

    _staged: StagedBundle

    def save(self, bundle: Bundle | None = None, *args: Any, **options: Any) -> None:
        """Put the labels as they are now into the bundle."""
        super().save(bundle or self._staged, *args, **options)

    def set_priority(self, priority: float, bundle: Bundle | None = None) -> None:
        """Put the priority into the bundle."""
        super().set_priority(priority, bundle or self._staged)

    def workflow_complete(self, bundle: Bundle | None = None) -> None:
        """Put the move to the end of the workflow into the bundle."""
        super().workflow_complete(bundle or self._staged)

    def workflow_reopen(self, bundle: Bundle | None = None) -> None:
        """Put the move to the beginning of the workflow into the bundle."""
        super().workflow_reopen(bundle or self._staged)


class _DeferredMoves(WorkflowClient):
    """What an agent task moves by."""

    def __init__(self, api_client: Any, project_hash: Any, staged: StagedBundle) -> None:
        super().__init__(api_client, project_hash)
        self._staged = staged

    def action(self, *args: Any, bundle: Bundle | None = None) -> None:
        """Put the move along a pathway into the bundle."""
        super().action(*args, bundle=bundle or self._staged)

    def move(self, *, bundle: Bundle | None = None, **options: Any) -> None:
        """Put the move to a stage into the bundle."""
        super().move(bundle=bundle or self._staged, **options)
