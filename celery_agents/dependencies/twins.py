"""``dep_twin_label_row``: the label row of the same data unit in another project."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.dependencies.by_hand import client_or_own
from celery_agents.errors import DeclarationError

if TYPE_CHECKING:
    import encord.objects.ontology_labels_impl
    import encord.project
    import encord.user_client
    from encord.workflow.common import WorkflowTask


@dataclass(frozen=True)
class Twin:
    """A data unit in the twin project."""

    label_row: encord.objects.ontology_labels_impl.LabelRowV2
    task: WorkflowTask | None  #: where it waits there, if that was asked for and there is something


def dep_twin_label_row(
    twin_project_hash: str, init_labels: bool = True, include_task: bool = False
) -> FindTwin:
    """A dependency that finds an agent task's data unit in another project, on the same datasets.

        twin: Annotated[Twin | None, Depends(dep_twin_label_row("<project_hash_b>"))]

    Nothing is read before an agent runs. Its twin is then read afresh: one call for the row, one for the labels, one
    for the task, and once for each worker process two for the project.

    Args:
        twin_project_hash: The UUID of the other project.
        init_labels: Whether to read the twin's labels.
        include_task: Whether to look for the task that waits in the other project's workflow.

    Raises:
        DeclarationError: *twin_project_hash* is not a UUID.
    """
    try:
        return FindTwin(UUID(str(twin_project_hash)), init_labels, include_task)
    except ValueError:
        raise DeclarationError(
            f"twin_project_hash={twin_project_hash!r} is not a UUID; it is the long id in the project's address on "
            "Encord."
        ) from None


@dataclass(frozen=True, slots=True)
class FindTwin:
    """Called with a label row, finds its twin. Two of the same project are the same dependency."""

    project_hash: UUID
    init_labels: bool
    include_task: bool

    def __call__(
        self,
        label_row: encord.objects.ontology_labels_impl.LabelRowV2,
        client: encord.user_client.EncordUserClient = None,  # type: ignore[assignment]
    ) -> Twin | None:
        """The twin, or None where the other project does not have the data unit.

        Raises:
            SetupError: There is no such project that this key may use.
        """
        project = _project(self.project_hash, client_or_own(client))
        rows = project.list_label_rows_v2(data_hashes=[label_row.data_hash])
        if not rows:
            return None
        (row,) = rows
        if self.init_labels:
            row.initialise_labels()
        return Twin(row, _task_of(row, project) if self.include_task else None)


@lru_cache(maxsize=16)
def _project(project_hash: UUID, client: encord.user_client.EncordUserClient) -> encord.project.Project:
    from celery_agents.gateway.project import Gateway

    return Gateway(project_hash, client).project


def _task_of(
    row: encord.objects.ontology_labels_impl.LabelRowV2, project: encord.project.Project
) -> WorkflowTask | None:
    node = row.workflow_graph_node
    stages = {str(stage.uuid): stage for stage in project.workflow.stages} if node is not None else {}
    # The project is read once per process: a stage that was added since is not in it.
    stage = stages.get(str(node.uuid)) if node is not None else None
    tasks = stage.get_tasks(data_hash=row.data_hash) if stage is not None else ()
    return next(iter(tasks), None)
