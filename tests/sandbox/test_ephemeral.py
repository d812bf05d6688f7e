"""Projects, datasets and ontologies that a test makes through the SDK and throws away again."""

from __future__ import annotations

from uuid import UUID

import pytest
from encord import EncordUserClient, Project
from encord.exceptions import InvalidArgumentsError, ResourceNotFoundError
from encord.objects import OntologyStructure, Shape
from encord.objects.attributes import RadioAttribute
from encord.orm.dataset import StorageLocation
from encord.orm.project import ProjectStatus
from encord.workflow import AgentStage

from celery_agents.sandbox import Kind, SandboxServer, StageSpec, StageType

from .conftest import add_box

AGENT_WORKFLOW = (
    StageSpec(title="Look", pathways={"seen": "Done"}),
    StageSpec(title="Done", type=StageType.DONE),
)


def structure() -> OntologyStructure:
    made = OntologyStructure()
    made.add_object("Object", Shape.BOUNDING_BOX)
    made.add_classification().add_attribute(RadioAttribute, "Size").add_option("small")
    return made


def test_a_project_lives_and_goes_through_the_sdk(client: EncordUserClient, sandbox: SandboxServer) -> None:
    # given: a folder with pictures and a workflow template, as somebody made them in the web app
    folder = client.create_storage_folder("Pictures", description="for a test")
    for number in range(3):
        sandbox.state.storage.add_item(str(folder.uuid), Kind.IMAGE, f"{number}.png", "owner@sandbox.local")
    template = sandbox.state.add_workflow_template("Look", AGENT_WORKFLOW)

    # when: the SDK makes dataset, ontology and project of them
    items = list(folder.list_items())
    created = client.create_dataset("Ephemeral", StorageLocation.CORD_STORAGE, create_backing_folder=False)
    dataset = client.get_dataset(created.dataset_hash)
    linked = dataset.link_items([item.uuid for item in items])
    ontology = client.create_ontology("Ephemeral", structure=structure())
    project_hash = client.create_project(
        "Ephemeral",
        [created.dataset_hash],
        project_description="gone soon",
        ontology_hash=ontology.ontology_hash,
        workflow_template_hash=template.template_hash,
    )

    # then: an agent can work on it
    project = client.get_project(project_hash)
    look = project.workflow.get_stage(name="Look", type_=AgentStage)
    tasks = list(look.get_tasks())
    assert {str(task.data_hash) for task in tasks} == {row.uid for row in linked}
    (row,) = project.list_label_rows_v2(data_hashes=[tasks[0].data_hash])
    row.initialise_labels()
    add_box(row, project)
    row.save()
    tasks[0].proceed("seen")
    assert sandbox.state.project(project_hash).counts() == {"Look": 2, "Done": 1}

    # and then it goes, piece by piece
    project.remove_datasets([created.dataset_hash])
    assert list(look.get_tasks()) == []
    assert list(project.list_datasets()) == []
    dataset.delete_data([row.uid for row in linked])
    assert client.get_dataset(created.dataset_hash).data_rows == []
    project.set_status(ProjectStatus.ARCHIVED)
    project.refetch_data()
    assert project.status is ProjectStatus.ARCHIVED
    folder.delete_storage_items([item.uuid for item in items[:2]])
    items[2].delete()
    folder.delete()
    with pytest.raises(ResourceNotFoundError):
        client.get_storage_folder(folder.uuid)
    for path in (
        f"projects/{project_hash}",
        f"datasets/{created.dataset_hash}",
        f"ontologies/{ontology.ontology_hash}",
    ):
        client._api_client.delete(path, params=None)
    with pytest.raises(ResourceNotFoundError):
        client.get_project(project_hash)
    with pytest.raises(ResourceNotFoundError):
        client.get_dataset(created.dataset_hash)
    with pytest.raises(ResourceNotFoundError):
        client.get_ontology(ontology.ontology_hash)
    assert list(sandbox.state.projects) == [sandbox.project_hash]


def test_a_project_without_template_gets_the_standard_workflow(
    client: EncordUserClient, sandbox: SandboxServer
) -> None:
    (dataset_hash,) = sandbox.state.datasets

    project = client.get_project(client.create_project("Standard", [dataset_hash]))

    assert [stage.title for stage in project.workflow.stages] == ["Annotate 1", "Review 1", "Complete"]
    assert project.ontology_structure.objects == []


def test_datasets_can_be_added_later(client: EncordUserClient, sandbox: SandboxServer) -> None:
    project = client.get_project(client.create_project("Empty", []))
    assert project.list_label_rows_v2() == []

    project.add_datasets(list(sandbox.state.datasets))
    project.add_datasets(list(sandbox.state.datasets))  # again changes nothing

    assert len(project.list_label_rows_v2()) == len(sandbox.state.project(sandbox.project_hash).units)


def test_linking_reaches_the_projects_that_use_the_dataset(
    client: EncordUserClient, sandbox: SandboxServer
) -> None:
    (dataset_hash,) = sandbox.state.datasets
    dataset, state = client.get_dataset(dataset_hash), sandbox.state.project(sandbox.project_hash)
    folder = sandbox.state.dataset(dataset_hash).folder_uuid
    item = sandbox.state.storage.add_item(folder, Kind.VIDEO, "late.mp4", "owner@sandbox.local")
    before = state.count_at("Pre-label")

    (row,) = dataset.link_items([UUID(item.uuid)])
    assert dataset.link_items([UUID(item.uuid)]) == []  # linked already

    assert state.count_at("Pre-label") == before + 1
    assert state.stage_of(row.uid) == "Pre-label"


def test_ontologies_are_edited(client: EncordUserClient, sandbox: SandboxServer) -> None:
    ontology = client.create_ontology("First", "a description", structure())
    ontology.structure.add_object("Second", Shape.POLYGON)
    ontology.title = "Renamed"
    ontology.save()

    again = client.get_ontology(ontology.ontology_hash)

    assert again.title == "Renamed"
    assert [thing.name for thing in again.structure.objects] == ["Object", "Second"]
    assert sandbox.state.ontology(again.ontology_hash).named("Second").shape == "polygon"
    assert {found["ontology"].title for found in client.get_ontologies()} == {"Red boxes", "Renamed"}


def test_what_is_in_use_stays(client: EncordUserClient, sandbox: SandboxServer) -> None:
    (ontology_hash,) = sandbox.state.ontologies
    folder = next(iter(sandbox.state.storage.folders))

    with pytest.raises(InvalidArgumentsError, match="used by a project"):
        client._api_client.delete(f"ontologies/{ontology_hash}", params=None)
    with pytest.raises(InvalidArgumentsError, match="not empty"):
        client.get_storage_folder(UUID(folder)).delete()


def test_unknown_parts_make_no_project(client: EncordUserClient, sandbox: SandboxServer) -> None:
    for options in ({"workflow_template_hash": "none"}, {"ontology_hash": "none"}):
        with pytest.raises(ResourceNotFoundError):
            client.create_project("Never", [], **options)  # type: ignore[arg-type]
    with pytest.raises(ResourceNotFoundError):
        client.create_project("Never", ["none"])
    assert list(sandbox.state.projects) == [sandbox.project_hash]
    assert len(sandbox.audit.records("projects.create", accepted=False)) == 3


def test_a_project_is_deleted_as_test_suites_do(client: EncordUserClient, sandbox: SandboxServer) -> None:
    project_hash = client.create_project("Short-lived", [])
    client.querier.basic_delete(Project, uid=project_hash)
    with pytest.raises(ResourceNotFoundError):
        client.get_project(project_hash)
    with pytest.raises(ResourceNotFoundError):
        client.querier.basic_delete(Project, uid=project_hash)
