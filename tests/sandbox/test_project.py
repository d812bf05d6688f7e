"""Projects, workflow stages and agent tasks through the SDK."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from encord import EncordUserClient, Project
from encord.exceptions import AuthorisationError, InvalidArgumentsError, ResourceNotFoundError
from encord.objects import Classification, Object
from encord.workflow import AgentStage, FinalStage, ReviewStage
from encord.workflow.common import WorkflowClient
from encord.workflow.stages.agent import AgentTaskStatus, _ActionPathway

from celery_agents.sandbox import Project as ProjectState
from celery_agents.sandbox import SandboxServer, StageSpec, StageType
from celery_agents.sandbox.signatures import new_private_key, public_key_of

from .conftest import KINDS, connect, proceed_all


def test_get_project_takes_two_calls_and_knows_workflow_and_ontology(
    project: Project, sandbox: SandboxServer
) -> None:
    assert sandbox.calls == {"projects.get": 1, "ontologies.get": 1}
    assert [stage.title for stage in project.workflow.stages] == [
        "Pre-label",
        "Route",
        "Review",
        "Complete",
        "Archive",
    ]
    assert project.ontology_structure.get_child_by_title("Object", type_=Object).shape.value == "bounding_box"
    assert project.ontology_structure.get_child_by_title("Size", type_=Classification).attributes
    assert sandbox.calls.total() == 2


def test_refetching_reads_what_changed(project: Project, state: ProjectState) -> None:
    state.title = "Renamed"
    state.ontology.title = "Renamed, too"

    project.refetch_data()
    project.refetch_ontology()

    assert project.title == "Renamed"


def test_pathways_lead_to_stages(project: Project, stage: AgentStage) -> None:
    assert {pathway.name for pathway in stage.pathways} == {"labelled", "nothing found"}
    leads_to = {p.name: project.workflow.get_stage(uuid=p.destination_uuid).title for p in stage.pathways}
    assert leads_to == {"labelled": "Route", "nothing found": "Archive"}


def test_datasets_and_projects_are_listed(
    project: Project, client: EncordUserClient, state: ProjectState
) -> None:
    assert [str(dataset.dataset_hash) for dataset in project.list_datasets()] == list(state.datasets)
    assert [str(found.project_hash) for found in client.list_projects()] == [state.project_hash]
    assert list(client.list_projects(title_eq="another")) == []


def test_tasks_come_in_pages(stage: AgentStage, sandbox: SandboxServer, state: ProjectState) -> None:
    tasks = list(stage.get_tasks())

    assert len(tasks) == KINDS
    assert sandbox.calls["tasks.list"] == 3  # pages of 3
    assert {str(task.data_hash) for task in tasks} == set(state.units)
    assert {task.status for task in tasks} == {AgentTaskStatus.NEW}
    assert tasks[0].label_branch_name == "main"


def test_a_page_token_stays_good_while_tasks_leave(stage: AgentStage, state: ProjectState) -> None:
    pages = iter(stage.get_tasks())
    first = [next(pages) for _ in range(3)]
    for task in first:
        state.put(str(task.uuid), "Archive")

    assert len(list(pages)) == KINDS - 3


def test_a_made_up_page_token_is_refused(
    client: EncordUserClient, stage: AgentStage, sandbox: SandboxServer
) -> None:
    from encord.workflow.common import TasksQueryParams
    from encord.workflow.stages.agent import AgentTask

    workflow = WorkflowClient(client._api_client, UUID(sandbox.project_hash))
    with pytest.raises(InvalidArgumentsError, match="page token"):
        list(workflow.get_tasks(stage.uuid, TasksQueryParams(page_token="made-up"), type_=AgentTask))


def test_task_filters(stage: AgentStage, state: ProjectState) -> None:
    units = list(state.units.values())
    video = next(unit for unit in units if unit.kind.value == "video")
    state.task(units[0].data_hash).assignee = "someone@sandbox.local"
    state.task(units[1].data_hash).status = "REOPENED"

    def found(**filters: object) -> set[str]:
        return {str(task.data_hash) for task in stage.get_tasks(**filters)}  # type: ignore[arg-type]

    assert found(data_hash=[units[2].data_hash, units[3].data_hash]) == {
        units[2].data_hash,
        units[3].data_hash,
    }
    assert found(data_hash=[]) == set(state.units)  # an empty list is left out of the URL: no filter
    assert found(data_hash=uuid4()) == set()
    assert found(dataset_hash=units[0].dataset_hash) == set(state.units)
    assert found(dataset_hash=uuid4()) == set()
    assert found(data_title="VIDEO-") == {video.data_hash}
    assert found(assignee="someone@sandbox.local") == {units[0].data_hash}
    assert found(status=AgentTaskStatus.REOPENED) == {units[1].data_hash}
    assert found(status=[AgentTaskStatus.REOPENED, AgentTaskStatus.NEW]) == set(state.units)


def test_proceed_by_name_and_by_uuid(stage: AgentStage, state: ProjectState, sandbox: SandboxServer) -> None:
    by_name, by_uuid, *_ = stage.get_tasks()
    archive = next(pathway for pathway in stage.pathways if pathway.name == "nothing found")

    by_name.proceed(pathway_name="labelled")
    by_uuid.proceed(pathway_uuid=archive.uuid)

    assert state.stage_of(str(by_name.uuid)) == "Route"
    assert state.stage_of(str(by_uuid.data_hash)) == "Archive"
    assert state.task(str(by_uuid.uuid)).status == "COMPLETED"
    assert state.task(str(by_name.uuid)).last_actioned_by == "owner@sandbox.local"
    assert state.count_at("Pre-label") == KINDS - 2
    assert sandbox.audit.moves() == {str(by_name.uuid): 1, str(by_uuid.uuid): 1}
    assert sandbox.audit.moves_from("Pre-label", sandbox.project_hash).total() == 2
    (record, _) = sandbox.audit.records("tasks.actions", accepted=True)
    assert record.number == 1
    assert record.detail == {
        "action": "PATHWAY_ACTION",
        "from": "Pre-label",
        "to": "Route",
        "pathway": "labelled",
    }


def test_an_action_needs_no_fetched_task(
    client: EncordUserClient, stage: AgentStage, state: ProjectState
) -> None:
    task = state.tasks_at("Pre-label")[0]

    workflow = WorkflowClient(client._api_client, UUID(state.project_hash))
    workflow.action(stage.uuid, _ActionPathway(task_uuid=UUID(task.uuid), pathway_name="labelled"))

    assert state.stage_of(task.uuid) == "Route"


def test_a_bundle_of_actions_is_one_call(project: Project, stage: AgentStage, sandbox: SandboxServer) -> None:
    with project.create_bundle() as bundle:
        for task in stage.get_tasks():
            task.proceed("labelled", bundle=bundle)

    assert sandbox.calls["tasks.actions"] == 1
    assert sandbox.state.project(sandbox.project_hash).count_at("Route") == KINDS


def test_a_task_that_left_refuses_the_whole_request(
    project: Project, stage: AgentStage, state: ProjectState, sandbox: SandboxServer
) -> None:
    tasks = list(stage.get_tasks())
    state.put(str(tasks[3].uuid), "Archive")

    with pytest.raises(InvalidArgumentsError, match="not all of the tasks"):
        proceed_all(project, [(task, "labelled") for task in tasks])

    assert state.count_at("Pre-label") == KINDS - 1
    assert state.count_at("Route") == 0
    refused = sandbox.audit.records("tasks.actions", accepted=False)
    assert {record.task_uuid for record in refused} == {str(task.uuid) for task in tasks}
    assert "Pre-label" in refused[0].detail["reason"]


def test_an_unknown_pathway_refuses_the_whole_request(
    project: Project, stage: AgentStage, state: ProjectState
) -> None:
    first, second, *_ = stage.get_tasks()

    with pytest.raises(InvalidArgumentsError, match="'labelled', 'nothing found'"):
        proceed_all(project, [(first, "labelled"), (second, "no such way")])

    assert state.count_at("Pre-label") == KINDS


def test_one_task_twice_in_a_request_is_refused(
    project: Project, stage: AgentStage, state: ProjectState
) -> None:
    task = next(iter(stage.get_tasks()))

    with pytest.raises(InvalidArgumentsError, match="twice"):
        proceed_all(project, [(task, "labelled"), (task, "nothing found")])

    assert state.stage_of(str(task.uuid)) == "Pre-label"


def test_move_goes_to_any_stage(
    project: Project, stage: AgentStage, state: ProjectState, sandbox: SandboxServer
) -> None:
    archive = project.workflow.get_stage(name="Archive", type_=FinalStage)
    alone, *others = stage.get_tasks()

    alone.move(destination_stage_uuid=archive.uuid)
    with project.create_bundle() as bundle:
        for task in others:
            task.move(destination_stage_uuid=archive.uuid, bundle=bundle)

    assert state.counts()["Archive"] == KINDS
    assert sandbox.calls["tasks.move"] == 2
    with pytest.raises(InvalidArgumentsError):
        alone.move(destination_stage_uuid=archive.uuid)
    with pytest.raises(InvalidArgumentsError, match="no stage"):
        alone.move(destination_stage_uuid=uuid4())


def test_tasks_of_people_go_on_with_their_own_actions(
    project: Project, state: ProjectState, sandbox: SandboxServer
) -> None:
    task_uuid = state.tasks_at("Pre-label")[0].uuid
    other_uuid = state.tasks_at("Pre-label")[1].uuid
    state.put(task_uuid, "Review")
    state.put(other_uuid, "Review")
    review = project.workflow.get_stage(name="Review", type_=ReviewStage)
    first, second = review.get_tasks()

    first.assign("reviewer@sandbox.local")
    assert state.task(task_uuid).assignee == "reviewer@sandbox.local"
    first.release()
    assert state.task(task_uuid).assignee is None
    first.approve()
    second.reject()

    assert state.stage_of(task_uuid) == "Complete"
    assert state.stage_of(other_uuid) == "Route"
    assert sandbox.audit.moves() == {task_uuid: 1, other_uuid: 1}
    (done,) = project.workflow.get_stage(name="Complete", type_=FinalStage).get_tasks()
    assert str(done.uuid) == task_uuid


def test_annotation_stages_submit(sandbox: SandboxServer, client: EncordUserClient) -> None:
    from encord.workflow import AnnotationStage

    made = sandbox.state.add_project("Standard", datasets=[next(iter(sandbox.state.datasets.values()))])
    annotate = client.get_project(made.project_hash).workflow.get_stage(
        name="Annotate 1", type_=AnnotationStage
    )

    next(iter(annotate.get_tasks())).submit()

    assert made.counts() == {"Annotate 1": KINDS - 1, "Review 1": 1, "Complete": 0}


def test_every_stage_type_can_be_read(sandbox: SandboxServer, client: EncordUserClient) -> None:
    stages = [StageSpec(title=type_.value, type=type_) for type_ in StageType]
    made = sandbox.state.add_project("All", stages=stages, datasets=sandbox.state.datasets.values())
    workflow = client.get_project(made.project_hash).workflow

    assert [stage.stage_type.value for stage in workflow.stages] == list(StageType)
    for stage in workflow.stages:
        expected = KINDS if stage.title == "AGENT" else 0
        assert len(list(stage.get_tasks())) == expected


def test_priorities(project: Project, sandbox: SandboxServer) -> None:
    rows = project.list_label_rows_v2()
    with project.create_bundle() as bundle:
        for number, row in enumerate(rows):
            row.set_priority(number / 10, bundle=bundle)

    assert [row.priority for row in project.list_label_rows_v2()] == [number / 10 for number in range(KINDS)]
    assert sandbox.calls["priorities.set"] == 1
    with pytest.raises(InvalidArgumentsError):
        project._client.workflow_set_priority([(str(uuid4()), 0.5)])
    with pytest.raises(InvalidArgumentsError, match="between 0 and 1"):
        project._client.workflow_set_priority([(rows[0].data_hash, 0.9), (rows[1].data_hash, 1.5)])
    assert project.list_label_rows_v2()[0].priority == 0


def test_unknown_project_and_stage(
    client: EncordUserClient, stage: AgentStage, sandbox: SandboxServer
) -> None:
    with pytest.raises(ResourceNotFoundError):
        client.get_project(uuid4())
    workflow = WorkflowClient(client._api_client, UUID(sandbox.project_hash))
    with pytest.raises(ResourceNotFoundError):
        workflow.action(uuid4(), _ActionPathway(task_uuid=uuid4(), pathway_name="labelled"))
    assert sandbox.audit.records("tasks.actions", accepted=False)


def test_a_stranger_sees_nothing(sandbox: SandboxServer, state: ProjectState) -> None:
    key = new_private_key()
    sandbox.state.add_key(public_key_of(key), "stranger@sandbox.local")

    with pytest.raises(AuthorisationError):
        connect(sandbox, key).get_project(sandbox.project_hash)
    state.members.add("stranger@sandbox.local")
    assert connect(sandbox, key).get_project(sandbox.project_hash).title == "Sandbox project"
