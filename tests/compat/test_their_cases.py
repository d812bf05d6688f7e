"""What encord-agents' own tests check of its runners and dependencies, on our package and every kind of data.

Left out is what they check of editor agents and of their own internals.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from encord.objects import LabelRowV2, Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.project import Project as EncordProject
from encord.storage import StorageItem
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage, AgentTask

from celery_agents import (
    AgentsError,
    Depends,
    LabelRowInitialiseLabelsArgs,
    LabelRowMetadataIncludeArgs,
    QueueRunner,
    Runner,
    SetupError,
    TaskAgentReturnStruct,
    TaskCompletionResult,
)
from celery_agents.dependencies import (
    Frame,
    dep_asset,
    dep_single_frame,
    dep_video_iterator,
    dep_video_sampler,
    get_user_client,
)
from celery_agents.sandbox import Kind, Project, SandboxServer, StageSpec, StageType

STAGE, DONE, ANNOTATE = "Agent 1", "Complete", "Annotate"
PATHWAY = "complete"
KINDS = tuple(Kind)
BOX = BoundingBoxCoordinates(height=0.5, width=0.5, top_left_x=0, top_left_y=0)
SEEDS = itertools.count(100)
WITH_BOXES = {Kind.IMAGE, Kind.IMAGE_GROUP, Kind.IMAGE_SEQUENCE, Kind.VIDEO, Kind.PDF}


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    # Another seed for each test: agents that belong to no app are known by project and stage in the whole process.
    with SandboxServer.start(tasks=0, seed=next(SEEDS)) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def project(sandbox: SandboxServer) -> Project:
    """Two data units of every kind, all at one agent stage with one pathway."""
    state = sandbox.state
    dataset = state.add_dataset("Every kind")
    state.add_data_units(dataset, KINDS * 2)
    stages = [
        StageSpec(title=STAGE, pathways={PATHWAY: DONE}),
        StageSpec(title=ANNOTATE, type=StageType.ANNOTATION, forward=DONE),
        StageSpec(title=DONE, type=StageType.DONE),
    ]
    ontology = state.add_ontology("Boxes", state.editor().add_object("Object").structure)
    return state.add_project("Kinds", stages=stages, ontology=ontology, datasets=[dataset])


@pytest.fixture
def pathway(project: Project) -> UUID:
    (stage, *_) = project.workflow.stages.values()
    return UUID(stage.pathways[0].uuid)


def specs_of(runner: QueueRunner) -> list[str]:
    return [task.model_dump_json() for stage in runner.get_agent_stages() for task in stage.get_tasks()]


def through_runner(project: Project, agent: Callable[..., Any], **options: Any) -> None:
    runner = Runner(project_hash=project.project_hash)
    runner.stage(STAGE, **options)(agent)
    runner()


def through_queue(project: Project, agent: Callable[..., Any], **options: Any) -> None:
    runner = QueueRunner(project_hash=project.project_hash)
    task = runner.stage(STAGE, **options)(agent)
    result = TaskCompletionResult.model_validate_json(task(specs_of(runner)))
    assert result.error is None


@pytest.fixture(params=[through_runner, through_queue])
def work_off(request: pytest.FixtureRequest, project: Project) -> Callable[..., None]:
    """Declare an agent and run it on all that waits; a failure shows."""
    return partial(request.param, project)


# --- the queue runner


def test_a_stage_is_listed_once_it_has_an_agent(project: Project) -> None:
    runner = QueueRunner(project_hash=project.project_hash)
    assert list(runner.get_agent_stages()) == []

    @runner.stage(STAGE)
    def agent() -> None:
        return None

    assert [stage.title for stage in runner.get_agent_stages()] == [STAGE]
    assert [stage.title for stage in runner.valid_stages] == [STAGE]
    assert runner.project.title == "Kinds"
    assert isinstance(runner.client, EncordUserClient)


def test_spec_by_spec(project: Project, pathway: UUID) -> None:
    runner = QueueRunner(project_hash=project.project_hash)
    seen = []

    @runner.stage(STAGE)
    def agent(task: AgentTask) -> str:
        seen.append(task.uuid)
        return PATHWAY

    (stage,) = runner.get_agent_stages()
    for spec in specs_of(runner):
        result = TaskCompletionResult.model_validate_json(agent(spec))
        assert (result.success, result.error, result.pathway) == (True, None, pathway)
        assert (result.stage_uuid, result.task_uuid) == (stage.uuid, AgentTask.model_validate_json(spec).uuid)
    assert project.counts() == {STAGE: 0, ANNOTATE: 0, DONE: len(seen)}
    assert len(set(seen)) == len(seen) == len(KINDS) * 2


def test_in_batches_label_rows_are_read_together(
    sandbox: SandboxServer, project: Project, pathway: UUID
) -> None:
    runner = QueueRunner(project_hash=project.project_hash)

    @runner.stage(STAGE)
    def agent(row: LabelRowV2) -> str:
        assert row.is_labelling_initialised
        return PATHWAY

    specs = specs_of(runner)
    batches = [specs[:5], specs[5:10], specs[10:]]
    for batch in batches:
        result = TaskCompletionResult.model_validate_json(agent(batch))
        assert (result.error, result.pathway) == (None, [pathway] * len(batch))
        assert (
            result.success == result.task_uuid == [AgentTask.model_validate_json(spec).uuid for spec in batch]
        )
    assert sandbox.calls["label_rows.list"] <= len(batches)
    assert project.count_at(DONE) == len(specs)


def test_what_an_agent_raises_is_told(project: Project) -> None:
    runner = QueueRunner(project_hash=project.project_hash)

    @runner.stage(STAGE)
    def agent() -> str:
        raise RuntimeError("no luck")

    for spec in specs_of(runner):
        result = TaskCompletionResult.model_validate_json(agent(spec))
        assert (result.success, result.pathway) == (False, None)
        assert "RuntimeError: no luck" in str(result.error)
    assert project.count_at(DONE) == 0


@pytest.mark.parametrize("wrong", ["no such pathway", uuid4()])
def test_a_wrong_pathway_is_told_with_the_right_ones(
    project: Project, pathway: UUID, wrong: str | UUID
) -> None:
    agent = lambda: wrong  # noqa: E731
    runner = QueueRunner(project_hash=project.project_hash)
    error = TaskCompletionResult.model_validate_json(runner.stage(STAGE)(agent)(specs_of(runner)[0])).error
    with pytest.raises(AgentsError) as raised:
        through_runner(project, agent)
    for text in (str(error), str(raised.value)):
        assert f"{PATHWAY!r} ({pathway})" in text
    assert project.count_at(DONE) == 0


# --- both runners


def test_the_struct_saves_labels_of_every_kind(
    sandbox: SandboxServer, project: Project, work_off: Callable[..., None], pathway: UUID
) -> None:
    def agent(row: LabelRowV2, item: StorageItem) -> TaskAgentReturnStruct:
        if item.item_type.value in WITH_BOXES:
            box = row.ontology_structure.get_child_by_title("Object", type_=Object).create_instance()
            box.set_for_frames(BOX)
            row.add_object_instance(box)
        return TaskAgentReturnStruct(pathway=pathway, label_row=row, label_row_priority=0.1337)

    work_off(agent)
    assert (
        sandbox.calls["labels.save"] == sandbox.calls["tasks.actions"] == sandbox.calls["priorities.set"] == 1
    )
    assert project.count_at(DONE) == len(project.units)
    for data_hash, unit in project.units.items():
        row = project.labels_of(data_hash)
        assert row is not None
        assert (row.saves, len(list(row.objects()))) == (1, unit.kind in WITH_BOXES)
        assert project.task(data_hash).priority == 0.1337


@pytest.mark.parametrize("priority", [0.0, 0.75])
def test_a_priority_without_a_label_row(
    sandbox: SandboxServer, project: Project, work_off: Callable[..., None], priority: float
) -> None:
    work_off(lambda: TaskAgentReturnStruct(label_row_priority=priority), will_set_priority=True)
    assert {project.task(data_hash).priority for data_hash in project.units} == {priority}
    assert sandbox.calls["priorities.set"] == 1
    assert project.count_at(STAGE) == len(project.units)


def test_none_leaves_everything_where_it_is(project: Project, work_off: Callable[..., None]) -> None:
    seen = []
    work_off(lambda: seen.append(1))
    assert len(seen) == project.count_at(STAGE) == len(project.units)


def test_storage_items_are_read_once_and_belong_to_their_agent_task(
    sandbox: SandboxServer, work_off: Callable[..., None]
) -> None:
    def agent(task: AgentTask, project: EncordProject, item: StorageItem) -> None:
        (row,) = project.list_label_rows_v2(data_hashes=[task.data_hash])
        assert item.uuid == row.backing_item_uuid
        assert item.get_signed_url() or item.item_type.value in ("imageGroup", "group")

    with pytest.warns(DeprecationWarning, match="get_signed_url"):
        work_off(agent)
    assert sandbox.calls["storage.bulk"] == 1
    assert sandbox.calls["labels.create"] == 0


def test_what_nobody_asks_for_is_not_read(sandbox: SandboxServer, work_off: Callable[..., None]) -> None:
    def agent(stage: AgentStage, project: EncordProject) -> None:
        assert stage.title == STAGE
        assert stage.pathways[0].name == PATHWAY
        assert project.title == "Kinds"

    work_off(agent)
    for name in ("label_rows.list", "labels.create", "labels.get", "storage.bulk", "storage.get"):
        assert sandbox.calls[name] == 0, name


def test_label_rows_as_the_stage_says(work_off: Callable[..., None], project: Project) -> None:
    for unit in project.units.values():
        unit.item.client_metadata = {"camera": 3}

    def agent(row: LabelRowV2) -> None:
        assert row.branch_name == "second-opinion"
        assert row.client_metadata == {"camera": 3}

    work_off(
        agent,
        label_row_metadata_include_args=LabelRowMetadataIncludeArgs(
            branch_name="second-opinion", include_client_metadata=True
        ),
        label_row_initialise_labels_args=LabelRowInitialiseLabelsArgs(include_signed_url=True),
    )


def test_dependencies_of_dependencies_are_shared(work_off: Callable[..., None]) -> None:
    ended = []

    def shared() -> Iterator[dict[str, int]]:
        notes: dict[str, int] = {}
        yield notes
        ended.append(notes)

    def first(notes: Annotated[dict[str, int], Depends(shared)], row: LabelRowV2) -> dict[str, int]:
        notes["first"] = len(row.data_title)
        return notes

    def second(times: int, notes: Annotated[dict[str, int], Depends(shared)]) -> dict[str, int]:
        notes["second"] = times
        return notes

    def agent(
        row: LabelRowV2,
        one: Annotated[dict[str, int], Depends(first)],
        two: Annotated[dict[str, int], Depends(partial(second, 2))],
    ) -> None:
        assert one is two
        assert one == {"first": len(row.data_title), "second": 2}
        assert not any(notes is one for notes in ended)

    work_off(agent)
    assert len(ended) == len(KINDS) * 2


# --- the sequential runner


def test_so_many_at_most(project: Project) -> None:
    runner = Runner(project_hash=project.project_hash)
    runner.stage(STAGE)(lambda: PATHWAY)
    runner(max_tasks_per_stage=2)
    assert project.count_at(DONE) == 2
    runner(task_batch_size=5)
    assert project.count_at(DONE) == len(project.units)


def test_a_stage_that_is_no_agent_stage(project: Project) -> None:
    runner = Runner(project_hash=project.project_hash)
    runner.stage(DONE)(lambda: None)
    with pytest.raises(SetupError, match=f"'{DONE}' is a stage of project .* but not an agent stage"):
        runner()


@pytest.mark.parametrize("is_given_first", [True, False])
def test_a_check_before_the_first_agent(project: Project, is_given_first: bool) -> None:
    titles = []

    def check(runner: Runner) -> None:
        assert runner.project is not None
        assert runner.valid_stages
        assert runner.agents
        titles.append(runner.project.title)
        raise AssertionError("not this one")

    first, later = (project.project_hash, None) if is_given_first else (None, project.project_hash)
    runner = Runner(project_hash=first, pre_execution_callback=check)
    runner.stage(STAGE)(lambda: PATHWAY)
    with pytest.raises(AssertionError, match="not this one"):
        runner(project_hash=later)
    assert titles == ["Kinds"]
    assert project.count_at(DONE) == 0


def test_a_client_of_ones_own(sandbox: SandboxServer, project: Project) -> None:
    stranger = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    client = EncordUserClient.create_with_ssh_private_key(stranger.decode(), domain=sandbox.url)
    for runner in (
        Runner(project_hash=project.project_hash, user_client=client),
        QueueRunner(project_hash=project.project_hash, user_client=client),
    ):
        with pytest.raises(SetupError, match="Encord does not accept this key"):
            assert runner.project


# --- dependencies, on the items of a project


@pytest.fixture
def item_of(project: Project) -> Callable[[Kind], StorageItem]:
    items = {unit.kind: unit.item.uuid for unit in reversed(project.units.values())}
    return lambda kind: get_user_client().get_storage_item(items[kind], sign_url=True)


@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.IMAGE_GROUP, Kind.IMAGE_SEQUENCE, Kind.VIDEO])
def test_the_first_frame_has_the_size_of_the_item(item_of: Callable[[Kind], StorageItem], kind: Kind) -> None:
    item = item_of(kind)
    sized = next(iter(item.get_child_items())) if kind is Kind.IMAGE_GROUP else item
    frame = dep_single_frame(item)
    assert frame.shape == (sized.height, sized.width, 3)
    assert frame.dtype == np.uint8


def test_iterator_sampler_and_single_frame_agree(item_of: Callable[[Kind], StorageItem]) -> None:
    item = item_of(Kind.VIDEO)
    with contextmanager(dep_video_iterator)(item) as frames:
        every = list(frames)
    assert [frame.frame for frame in every] == list(range(item.frame_count or 0))
    assert all(isinstance(frame, Frame) for frame in every)
    assert np.array_equal(every[0].content, dep_single_frame(item))
    with contextmanager(dep_video_sampler)(item) as sampler:
        for chosen, expected in ((1, every), (0.5, every[::2]), ([3, 1, 2], every[1:4])):
            taken = sampler(chosen)
            assert isinstance(taken, Iterator)
            for frame, same in zip(taken, expected, strict=True):
                assert frame.frame == same.frame
                assert np.array_equal(frame.content, same.content)
        for refused in (0, 1.5):
            with pytest.raises(ValueError, match="at most 1"):
                sampler(refused)
    with contextmanager(dep_video_iterator)(item_of(Kind.IMAGE_SEQUENCE)) as frames:
        assert len(list(frames)) == 5


def test_files_of_every_kind_that_is_one(item_of: Callable[[Kind], StorageItem]) -> None:
    suffixes = {
        Kind.IMAGE: ".png",
        Kind.IMAGE_SEQUENCE: ".mp4",
        Kind.VIDEO: ".mp4",
        Kind.AUDIO: ".wav",
        Kind.PLAIN_TEXT: ".txt",
        Kind.PDF: ".pdf",
    }
    with ExitStack() as stack:
        files: list[Path] = []
        for kind, suffix in suffixes.items():
            files.append(stack.enter_context(contextmanager(dep_asset)(item_of(kind))))
            assert (files[-1].suffix, files[-1].exists()) == (suffix, True), kind
    assert [file for file in files if file.exists()] == []


@pytest.mark.parametrize("kind", [Kind.IMAGE_GROUP, Kind.GROUP])
def test_the_files_of_a_group_are_its_children(item_of: Callable[[Kind], StorageItem], kind: Kind) -> None:
    group = item_of(kind)
    with pytest.raises(NotImplementedError, match=r"fetch the items of storage_item\.get_child_items"):
        next(dep_asset(group))
    with ExitStack() as stack:
        for child in group.get_child_items(get_signed_urls=True):
            assert stack.enter_context(contextmanager(dep_asset)(child)).stat().st_size
