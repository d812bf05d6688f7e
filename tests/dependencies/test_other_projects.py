"""What is read from elsewhere than the agent's own project: twins, and the deprecated lookup. On the sandbox."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import uuid4

import pytest
from encord.objects import Classification, LabelRowV2
from encord.project import Project as EncordProject
from encord.user_client import EncordUserClient
from encord.workflow.common import WorkflowTask
from encord.workflow.stages.agent import AgentTask
from encord.workflow.stages.final import FinalStageTask

from celery_agents import Depends, QueueRunner, TaskCompletionResult
from celery_agents.dependencies import (
    DataLookup,
    Twin,
    dep_client,
    dep_data_lookup,
    dep_twin_label_row,
    get_user_client,
)
from celery_agents.errors import DeclarationError, SetupError
from celery_agents.sandbox import Project, SandboxServer


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=4, seed=3) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def project(sandbox: SandboxServer) -> Project:
    return sandbox.state.project(sandbox.project_hash)


@pytest.fixture
def twin_project(sandbox: SandboxServer, project: Project) -> Project:
    """Another project on the same dataset, whose workflow begins with an agent stage as well."""
    from celery_agents.sandbox.seed import STAGES

    return sandbox.state.add_project(
        "Twin", stages=STAGES, ontology=project.ontology, datasets=project.datasets.values()
    )


@pytest.fixture
def client(sandbox: SandboxServer) -> EncordUserClient:
    return get_user_client()


@pytest.fixture
def row(client: EncordUserClient, project: Project) -> LabelRowV2:
    return client.get_project(project.project_hash).list_label_rows_v2()[0]


# --- twins


def test_a_twin_is_the_label_row_of_the_same_data_unit(row: LabelRowV2, twin_project: Project) -> None:
    twin = dep_twin_label_row(twin_project.project_hash)(row)

    assert isinstance(twin, Twin)
    assert (twin.label_row.data_hash, twin.label_row.backing_item_uuid) == (
        row.data_hash,
        row.backing_item_uuid,
    )
    assert twin.label_row.is_labelling_initialised
    assert twin.task is None
    assert not row.is_labelling_initialised


def test_labels_are_read_unless_they_are_not_wanted(row: LabelRowV2, twin_project: Project) -> None:
    twin = dep_twin_label_row(twin_project.project_hash, init_labels=False)(row)
    assert twin is not None
    assert not twin.label_row.is_labelling_initialised


def test_the_task_of_a_twin_can_proceed(
    row: LabelRowV2, twin_project: Project, client: EncordUserClient
) -> None:
    find = dep_twin_label_row(twin_project.project_hash, include_task=True)
    twin = find(row, client)
    assert twin is not None
    assert isinstance(twin.task, AgentTask)
    twin.task.proceed("nothing found")
    assert twin_project.stage_of(row.data_hash) == "Archive"

    again = find(row, client)
    assert again is not None
    assert isinstance(again.task, FinalStageTask | WorkflowTask)


def test_each_call_reads_the_twin_afresh(
    sandbox: SandboxServer, row: LabelRowV2, twin_project: Project, client: EncordUserClient
) -> None:
    find = dep_twin_label_row(twin_project.project_hash)
    first, second = find(row, client), find(row, client)
    assert first is not None
    assert second is not None
    assert first.label_row is not second.label_row
    assert sandbox.calls["projects.get"] == 2  # the fixture's project, and the twin's once


def test_a_data_unit_without_a_twin(sandbox: SandboxServer, row: LabelRowV2) -> None:
    empty = sandbox.state.add_project("Empty")
    assert dep_twin_label_row(empty.project_hash)(row) is None


def test_a_project_that_is_not_there_is_named_when_it_is_needed(row: LabelRowV2) -> None:
    unknown = str(uuid4())
    find = dep_twin_label_row(unknown)
    with pytest.raises(SetupError, match=f"There is no project {unknown}"):
        find(row)


def test_a_project_hash_that_is_none_is_refused_when_declared() -> None:
    with pytest.raises(DeclarationError, match="twin_project_hash='my_project' is not a UUID"):
        dep_twin_label_row("my_project")


def test_two_of_the_same_project_are_one_dependency(twin_project: Project) -> None:
    one, two = (dep_twin_label_row(twin_project.project_hash) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != dep_twin_label_row(twin_project.project_hash, include_task=True)


def test_labels_are_transferred_from_project_to_project(project: Project, twin_project: Project) -> None:
    runner = QueueRunner(project_hash=project.project_hash)

    @runner.stage("Pre-label")
    def transfer(
        row: LabelRowV2, twin: Annotated[Twin | None, Depends(dep_twin_label_row(twin_project.project_hash))]
    ) -> str:
        assert twin is not None
        assert twin.label_row.data_hash == row.data_hash
        answer = twin.label_row.ontology_structure.get_child_by_title(
            "Note", type_=Classification
        ).create_instance()
        answer.set_answer(f"copied from {row.data_title}")
        answer.set_for_frames(0)
        twin.label_row.add_classification_instance(answer)
        twin.label_row.save()
        return "labelled"

    images = [task for task in project.tasks_at("Pre-label") if project.units[task.data_hash].kind == "image"]
    (stage,) = runner.get_agent_stages()
    specs = [
        task.model_dump_json() for task in stage.get_tasks(data_hash=[task.data_hash for task in images])
    ]
    result = TaskCompletionResult.model_validate_json(transfer(specs))

    assert result.error is None
    for task in images:
        copied = twin_project.labels_of(task.data_hash)
        assert copied is not None
        assert copied.saves == 1
        assert len(copied.classification_answers) == 1


# --- clients and lookups


def test_a_client_for_whoever_calls_by_hand(client: EncordUserClient, project: Project) -> None:
    assert dep_client().get_project(project.project_hash).title == "Sandbox project"
    assert dep_client(client) is client


@pytest.fixture
def encord_project(client: EncordUserClient, project: Project) -> Iterator[EncordProject]:
    yield client.get_project(project.project_hash)
    DataLookup.__instances__.clear()


def test_a_lookup_finds_rows_and_items_and_says_that_it_is_deprecated(
    encord_project: EncordProject, row: LabelRowV2
) -> None:
    with pytest.deprecated_call(match="use dep_storage_item"):
        lookup = DataLookup.sharable(encord_project)
    assert DataLookup.sharable(encord_project) is lookup
    asked: list[tuple[Any, ...]] = [
        (lookup.get_data_row, row.data_hash),
        (lookup.get_storage_item, row.data_hash),
        (lookup.get_storage_items, [row.data_hash]),
        (dep_data_lookup, lookup),
    ]
    answers = []
    for ask, argument in asked:
        with pytest.deprecated_call(match=f"{ask.__name__} is deprecated"):
            answers.append(ask(argument))
    data_row, item, items, same = answers
    assert data_row.uid == row.data_hash
    assert item.uuid == items[0].uuid == row.backing_item_uuid
    assert same is lookup
    with pytest.deprecated_call():
        assert row.backing_item_uuid in lookup.backing_item_uuids


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lookup_elsewhere_needs_to_be_told_where(
    client: EncordUserClient, project: Project, row: LabelRowV2
) -> None:
    lookup = DataLookup(user_client=client)
    for ask in (lookup.get_data_row, lookup.get_storage_item):
        with pytest.raises(ValueError, match=f"Data unit {row.data_hash} is in none of the datasets"):
            ask(row.data_hash)
    (dataset_hash,) = project.datasets
    assert lookup.get_data_row(row.data_hash, dataset_hash).uid == row.data_hash
    assert lookup.get_data_row(row.data_hash).uid == row.data_hash


def test_an_agent_may_still_take_a_lookup(project: Project, encord_project: EncordProject) -> None:
    runner = QueueRunner(project_hash=project.project_hash)

    @runner.stage("Pre-label")
    def look(task: AgentTask, lookup: Annotated[DataLookup, Depends(dep_data_lookup)]) -> str:
        assert lookup.get_storage_item(task.data_hash).name == task.data_title
        return "nothing found"

    (stage,) = runner.get_agent_stages()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        look([task.model_dump_json() for task in stage.get_tasks()])
    assert project.count_at("Archive") == 4
