"""What encord-agents' own tests say of its sequential runner holds for ours, each on the real SDK."""

from __future__ import annotations

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

import pytest
from encord.exceptions import EncordException
from encord.objects import Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.project import Project as SdkProject
from encord.storage import StorageItem
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage, AgentTask

from celery_agents import (
    AgentTaskError,
    DeclarationError,
    LabelRowMetadataIncludeArgs,
    Runner,
    SequentialRunner,
    SetupError,
    TaskAgentReturnStruct,
)
from celery_agents.sandbox import Kind, Project, SandboxServer, StageSpec, StageType
from celery_agents.sandbox.signatures import new_private_key

from .conftest import DONE, FORWARD, STAGE


def test_it_has_two_names() -> None:
    assert SequentialRunner is Runner


def test_a_stage_that_is_no_agent_stage_is_refused(sandbox: SandboxServer) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage("Review")(lambda: None)
    with pytest.raises(SetupError, match=r"'Review' is a stage of project .*, but not an agent stage"):
        runner()


@pytest.mark.sandbox(tasks=53)
def test_each_agent_task_is_run_once_whatever_the_batches(sandbox: SandboxServer, project: Project) -> None:
    runner, met = Runner(sandbox.project_hash), Counter[UUID]()

    @runner.stage(STAGE)
    def agent(task: AgentTask) -> str:
        met[task.uuid] += 1
        return FORWARD

    runner(task_batch_size=11)

    assert (len(met), set(met.values())) == (53, {1})
    assert project.counts()[STAGE] == 0
    assert project.counts()[DONE] == 53


def test_at_most_so_many_of_each_stage(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE)(lambda: FORWARD)

    assert runner(max_tasks_per_stage=2).total == 2
    assert (project.count_at(STAGE), project.count_at(DONE)) == (10, 2)


def test_without_a_pathway_they_stay_and_are_run_once(sandbox: SandboxServer, project: Project) -> None:
    runner, met = Runner(sandbox.project_hash), Counter[UUID]()

    @runner.stage(STAGE)
    def agent(task: AgentTask) -> None:
        met[task.uuid] += 1

    runner(task_batch_size=5)

    assert project.count_at(STAGE) == len(met) == 12
    assert set(met.values()) == {1}


@pytest.mark.parametrize("is_bound", [True, False])
def test_the_callback_comes_once_before_a_run(sandbox: SandboxServer, is_bound: bool) -> None:
    called: list[object] = []

    def callback(runner: Runner) -> None:
        project = runner.project
        assert project is not None
        called.append((runner, project.title, bool(project.ontology_structure.objects)))

    runner = Runner(sandbox.project_hash if is_bound else None, pre_execution_callback=callback)
    runner.stage(STAGE)(lambda: None)
    assert called == []

    runner(project_hash=None if is_bound else sandbox.project_hash)

    assert called == [(runner, "Sandbox project", True)]


def test_a_callback_that_raises_ends_the_call(sandbox: SandboxServer) -> None:
    def callback(runner: Runner) -> None:
        raise AssertionError("not this project")

    runner = Runner(sandbox.project_hash, pre_execution_callback=callback)
    runner.stage(STAGE)(lambda: FORWARD)
    for call in (runner.__call__, partial(runner.run_stage, STAGE)):
        with pytest.raises(AssertionError, match="not this project"):
            call()
    assert sandbox.audit.moves() == {}


@pytest.mark.parametrize("wrong", ["no pathway", uuid.uuid4()], ids=["name", "UUID"])
def test_an_unknown_pathway_is_raised_naming_those_that_exist(
    sandbox: SandboxServer, wrong: str | UUID
) -> None:
    runner, calls = Runner(sandbox.project_hash), list[UUID]()

    @runner.stage(STAGE)
    def agent(task: AgentTask) -> str | UUID:
        calls.append(task.uuid)
        return wrong

    (stage,) = runner.get_agent_stages()
    with pytest.raises(AgentTaskError) as refusal:
        runner()

    for pathway in stage.pathways:
        assert pathway.name in str(refusal.value)
        assert str(pathway.uuid) in str(refusal.value)
    assert len(calls) == 12  # it would answer the same again


def test_stage_project_and_client_are_injected(sandbox: SandboxServer) -> None:
    runner, seen = Runner(sandbox.project_hash), []

    @runner.stage(STAGE)
    def agent(stage: AgentStage, project: SdkProject, client: EncordUserClient) -> UUID:
        seen.append((stage.title, project.project_hash, client.user_config.domain))
        return stage.pathways[0].uuid

    runner()
    assert set(seen) == {(STAGE, sandbox.project_hash, sandbox.url)}


@pytest.mark.parametrize("takes_row", [True, False])
def test_storage_items_are_read_once_and_are_those_of_the_data_unit(
    sandbox: SandboxServer, takes_row: bool
) -> None:
    runner, pairs = Runner(sandbox.project_hash), list[tuple[str, str]]()

    def with_row(task: AgentTask, label_row: LabelRowV2, item: StorageItem) -> None:
        assert label_row.backing_item_uuid == item.uuid
        pairs.append((task.data_title, item.name))

    def without_row(task: AgentTask, item: StorageItem) -> None:
        pairs.append((task.data_title, item.name))

    runner.stage(STAGE)(with_row if takes_row else without_row)
    assert runner().failed == 0

    assert len(pairs) == 12
    assert all(title == name for title, name in pairs)
    assert sandbox.calls["storage.bulk"] == 1


def test_labels_in_the_returned_struct_are_saved_together(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner(sandbox.project_hash)
    assert runner.project is not None
    box = runner.project.ontology_structure.get_child_by_title("Object", type_=Object)

    @runner.stage(STAGE)
    def agent(label_row: LabelRowV2) -> TaskAgentReturnStruct:
        if label_row.data_type.value not in ("image", "video"):
            return TaskAgentReturnStruct(pathway="nothing found", label_row_priority=0.1337)
        instance = box.create_instance()
        instance.set_for_frames(BoundingBoxCoordinates(height=0.5, width=0.5, top_left_x=0, top_left_y=0))
        label_row.add_object_instance(instance)
        return TaskAgentReturnStruct(pathway=FORWARD, label_row=label_row, label_row_priority=0.1337)

    assert runner().failed == 0

    assert sandbox.calls["labels.save"] == 1
    assert {task.priority for task in project.workflow.tasks.values()} == {0.1337}
    rows = runner.project.list_label_rows_v2()
    with runner.project.create_bundle() as bundle:
        for row in rows:
            row.initialise_labels(bundle=bundle)
    assert {row.data_type.value for row in rows if row.get_object_instances()} <= {"image", "video"}
    assert any(row.get_object_instances() for row in rows)


def test_priorities_are_set_together_without_label_rows(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE, will_set_priority=True)(lambda: TaskAgentReturnStruct(label_row_priority=0.1337))

    runner()

    assert {task.priority for task in project.workflow.tasks.values()} == {0.1337}
    assert (sandbox.calls["label_rows.list"], sandbox.calls["labels.create"]) == (1, 0)


def test_label_rows_of_a_branch(sandbox: SandboxServer) -> None:
    runner, branches = Runner(sandbox.project_hash), set[str]()

    @runner.stage(STAGE, label_row_metadata_include_args=LabelRowMetadataIncludeArgs(branch_name="other"))
    def agent(label_row: LabelRowV2) -> None:
        branches.add(label_row.branch_name)

    assert runner().failed == 0
    assert branches == {"other"}


def test_a_client_that_encord_does_not_know(sandbox: SandboxServer) -> None:
    stranger = EncordUserClient.create_with_ssh_private_key(new_private_key(), domain=sandbox.url)
    runner = Runner(sandbox.project_hash, user_client=stranger)
    runner.stage(STAGE)(lambda: None)
    with pytest.raises((SetupError, EncordException), match=r"does not accept this key|no project"):
        runner()


def test_one_stage_one_agent_unless_it_is_overwritten() -> None:
    runner = Runner()

    @runner.stage(stage="First")
    def first() -> str:
        return "1"

    @runner.stage(stage="Second")
    def second() -> str:
        return "2"

    with pytest.raises(DeclarationError, match="'First' has an agent already"):
        runner.stage(stage="First")(lambda: None)

    @runner.stage(stage="First", overwrite=True)
    def third() -> str:
        return "3"

    assert [each.identity for each in runner.agents] == ["First", "Second"]
    assert [each.callable() for each in runner.agents] == ["3", "2"]
    assert first() == "1"  # it is the function that it was


@pytest.mark.parametrize("number", [0, -1])
def test_max_tasks_is_at_least_one(number: int) -> None:
    with pytest.raises(
        DeclarationError, match=f"max_tasks_per_stage={number}: give a whole number, 1 or more"
    ):
        Runner()(max_tasks_per_stage=number)


def test_run_stage_runs_one_and_needs_no_other(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner()
    runner.stage(STAGE)(lambda: FORWARD)
    runner.stage("In another project")(lambda: FORWARD)
    stage_uuid = project.tasks_at(STAGE)[0].stage_uuid

    with ThreadPoolExecutor(1) as server:  # from which it is called beside the main thread
        call = partial(runner.run_stage, stage_uuid, project_hash=sandbox.project_hash)
        summary = server.submit(call, max_tasks=5, task_batch_size=2).result()

    assert (summary.total, project.count_at(DONE)) == (5, 5)
    with pytest.raises(SetupError, match="no agent stage 'In another project'"):
        runner(project_hash=sandbox.project_hash)


def test_run_stage_refuses_what_it_cannot_run(sandbox: SandboxServer) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE)(lambda: FORWARD)
    with pytest.raises(SetupError, match="no agent stage 'Pre-lable'; did you mean 'Pre-label'"):
        runner.run_stage("Pre-lable")
    with pytest.raises(
        DeclarationError, match="No agent is declared for stage 'Route'; declared are: 'Pre-label'"
    ):
        runner.run_stage("Route")
    with pytest.raises(DeclarationError, match=f"is for project {sandbox.project_hash} and cannot run"):
        runner.run_stage(STAGE, project_hash=uuid.uuid4())


def test_stages_are_run_in_the_order_of_their_declaration(sandbox: SandboxServer, project: Project) -> None:
    runner = Runner(sandbox.project_hash)
    runner.stage(STAGE)(lambda: FORWARD)
    runner.stage(DONE)(lambda: "small")

    summary = runner()

    assert [(each.stage, each.total) for each in summary.stages] == [(STAGE, 12), (DONE, 12)]
    assert project.count_at("Complete") == 12


def test_one_runner_serves_several_projects(sandbox: SandboxServer) -> None:
    dataset = sandbox.state.add_dataset("More")
    sandbox.state.add_data_units(dataset, [Kind.IMAGE] * 3)
    stages = [
        StageSpec(title=STAGE, pathways={FORWARD: "Done"}),
        StageSpec(title="Done", type=StageType.DONE),
    ]
    other = sandbox.state.add_project("Other", stages=stages, datasets=[dataset])
    runner, titles = Runner(), list[str]()

    @runner.stage(STAGE)
    def agent(project: SdkProject) -> str:
        titles.append(project.title)
        return FORWARD

    runner(project_hash=other.project_hash)
    runner(project_hash=sandbox.project_hash)

    assert titles == ["Other"] * 3 + ["Sandbox project"] * 12
    assert (runner.project, runner.valid_stages) == (None, None)
    assert runner.client.get_project(other.project_hash).title == "Other"
