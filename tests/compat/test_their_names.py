"""encord-agents' own markers, dependencies and models in our runner, beside what the published agents use of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from encord.objects import LabelRowV2
from encord.project import Project
from encord.storage import StorageItem
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentTask
from encord_agents.core.data_model import LabelRowInitialiseLabelsArgs, LabelRowMetadataIncludeArgs
from encord_agents.core.dependencies.shares import DataLookup
from encord_agents.tasks import Depends
from encord_agents.tasks.dependencies import (
    dep_asset,
    dep_client,
    dep_data_lookup,
    dep_single_frame,
    dep_storage_item,
)
from encord_agents.tasks.models import TaskAgentReturnStruct, TaskCompletionResult

from celery_agents import QueueRunner
from celery_agents.sandbox import SandboxServer

KINDS = 7


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=KINDS, seed=5) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


def work_off(runner: QueueRunner, agent: Any) -> TaskCompletionResult:
    """As one message, and read by encord-agents' model of a result."""
    (stage,) = runner.get_agent_stages()
    specs = [task.model_dump_json() for task in stage.get_tasks()]
    return TaskCompletionResult.model_validate_json(agent(specs))


def test_their_dependencies_and_their_struct(sandbox: SandboxServer) -> None:
    runner = QueueRunner(project_hash=sandbox.project_hash)

    def title_of(
        row: LabelRowV2,
        item: StorageItem = Depends(dep_storage_item),  # type: ignore[assignment]  # noqa: B008  (as documented)
    ) -> str:
        assert row.data_title == item.name
        return item.name

    @runner.stage(
        "Pre-label",
        label_row_metadata_include_args=LabelRowMetadataIncludeArgs(include_client_metadata=True),
        label_row_initialise_labels_args=LabelRowInitialiseLabelsArgs(include_signed_url=True),
    )
    def agent(
        task: AgentTask,
        row: LabelRowV2,
        project: Project,
        client: Annotated[EncordUserClient, Depends(dep_client)],
        title: Annotated[str, Depends(title_of)],
    ) -> TaskAgentReturnStruct:
        assert task.data_title == title
        assert row.client_metadata
        assert client.get_project(project.project_hash).title == project.title
        return TaskAgentReturnStruct(pathway="labelled", label_row=row, label_row_priority=0.25)

    result = work_off(runner, agent)
    assert result.error is None
    assert isinstance(result.success, list)
    assert len(result.success) == KINDS
    project = sandbox.state.project(sandbox.project_hash)
    for data_hash in project.units:
        row = project.labels_of(data_hash)
        assert row is not None
        assert (row.saves, project.task(data_hash).priority) == (1, 0.25)


@pytest.mark.filterwarnings("ignore:get_signed_url:DeprecationWarning")
def test_their_media(sandbox: SandboxServer) -> None:
    runner = QueueRunner(project_hash=sandbox.project_hash)
    seen: dict[str, Any] = {}

    def shape_of(item: StorageItem) -> Any:
        kind = item.item_type.value
        is_picture = kind in ("image", "imageGroup", "imageSequence", "video")
        return dep_single_frame(item).shape if is_picture else None

    @runner.stage("Pre-label")
    def agent(item: StorageItem, shape: Annotated[Any, Depends(shape_of)]) -> str:
        seen[item.item_type.value] = shape
        return "labelled"

    assert work_off(runner, agent).error is None
    picture = (240, 320, 3)
    assert seen == dict.fromkeys(("image", "imageGroup", "imageSequence", "video"), picture) | dict.fromkeys(
        ("audio", "plainText", "pdf")
    )


@pytest.mark.filterwarnings("ignore:get_signed_url:DeprecationWarning")
def test_their_errors_stay_with_their_agent_task(sandbox: SandboxServer) -> None:
    """An image group is no file: the agent task of that one fails, and the others have their files."""
    runner = QueueRunner(project_hash=sandbox.project_hash)
    files: list[Path] = []

    @runner.stage("Pre-label")
    def agent(asset: Annotated[Path, Depends(dep_asset)]) -> str:
        assert asset.stat().st_size
        files.append(asset)
        return "labelled"

    result = work_off(runner, agent)
    assert isinstance(result.success, list)
    assert len(result.success) == len(files) == KINDS - 1
    assert "NotImplementedError" in str(result.error)
    assert [file for file in files if file.exists()] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_their_lookup(sandbox: SandboxServer) -> None:
    runner = QueueRunner(project_hash=sandbox.project_hash)

    @runner.stage("Pre-label")
    def agent(task: AgentTask, lookup: Annotated[DataLookup, Depends(dep_data_lookup)]) -> str:
        assert lookup.get_storage_item(task.data_hash).name == task.data_title
        return "labelled"

    assert work_off(runner, agent).error is None
