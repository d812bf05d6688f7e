"""The rules without HTTP: plain calls on the state."""

from __future__ import annotations

import ast
import threading
from collections import Counter
from pathlib import Path

import pytest

import celery_agents.sandbox as package
from celery_agents.sandbox import Kind, Project, Sandbox, StageSpec, StageType, kinds, seed_project
from celery_agents.sandbox.backlog import TaskFilter
from celery_agents.sandbox.errors import InvalidArgumentsError, NotFoundError
from celery_agents.sandbox.workflow import Action

WHO = "owner@sandbox.local"


@pytest.fixture
def state() -> Sandbox:
    return Sandbox(seed=1, page_size=10)


@pytest.fixture
def project(state: Sandbox) -> Project:
    return seed_project(state, tasks=25, seed=1)


def proceed(project: Project, *task_uuids: str, pathway: str = "labelled") -> None:
    stage = project.workflow.stage_titled("Pre-label")
    actions = [Action(uuid, "PATHWAY_ACTION", pathway_name=pathway) for uuid in task_uuids]
    project.act(stage.uuid, actions, who=WHO)


def test_a_project_of_ones_own(state: Sandbox) -> None:
    editor = state.editor().add_object("Thing", shape="polygon").add_text("Why")
    ontology = state.add_ontology("Mine", editor.structure)
    dataset = state.add_dataset("Mine")
    stages = [StageSpec(title="Look", pathways={"on": "End"}), StageSpec(title="End", type=StageType.DONE)]
    project = state.add_project("Mine", stages=stages, ontology=ontology, datasets=[dataset])

    first, second = state.add_data_units(dataset, [Kind.IMAGE, Kind.PDF])

    assert project.counts() == {"Look": 2, "End": 0}
    assert project.stage_of(first.data_hash) == project.stage_of(project.task(first.data_hash).uuid) == "Look"
    assert (len(first.truth), len(second.truth)) == (1, 0)


def test_the_same_seed_makes_the_same_project() -> None:
    one, two = (seed_project(Sandbox(seed=5), tasks=20, seed=5) for _ in range(2))
    assert list(one.units) == list(two.units)
    assert [unit.truth for unit in one.units.values()] == [unit.truth for unit in two.units.values()]
    assert list(seed_project(Sandbox(seed=6), tasks=20, seed=6).units) != list(one.units)


def test_every_kind_is_seeded_and_most_are_images() -> None:
    drawn = Counter(kinds(500, seed=2))
    assert drawn.keys() == set(Kind) - {Kind.GROUP}
    assert drawn[Kind.IMAGE] > 250
    assert len(kinds(3, seed=2)) == 3


def test_a_graph_must_hang_together(state: Sandbox) -> None:
    with pytest.raises(InvalidArgumentsError, match="no stage 'Nowhere'"):
        state.add_project("Bad", stages=[StageSpec(title="A", pathways={"on": "Nowhere"})])
    with pytest.raises(InvalidArgumentsError, match="each title once"):
        state.add_project("Bad", stages=[StageSpec(title="A"), StageSpec(title="A")])
    with pytest.raises(InvalidArgumentsError, match="at least one stage"):
        state.add_project("Bad", stages=[])


def test_all_or_nothing(project: Project) -> None:
    first, second, third = (task.uuid for task in project.tasks_at("Pre-label")[:3])
    proceed(project, second)

    with pytest.raises(InvalidArgumentsError):
        proceed(project, first, second, third)

    assert [project.stage_of(uuid) for uuid in (first, second, third)] == ["Pre-label", "Route", "Pre-label"]


def test_actions_belong_to_stage_types(project: Project) -> None:
    stage, task = project.workflow.stage_titled("Pre-label"), project.tasks_at("Pre-label")[0]
    with pytest.raises(InvalidArgumentsError, match="'SUBMIT' does not apply to AGENT"):
        project.act(stage.uuid, [Action(task.uuid, "SUBMIT")], who=WHO)


def test_pages_are_complete_whatever_leaves_and_arrives(project: Project) -> None:
    stage = project.workflow.stage_titled("Pre-label")
    seen, token = [], None
    for _ in range(10):
        tasks, token = project.page(stage.uuid, TaskFilter(), token)
        seen += [task.uuid for task in tasks]
        project.put(tasks[0].uuid, "Archive")
        project.put(tasks[1].uuid, "Pre-label")  # arrives anew, behind all others
        if token is None:
            break

    assert token is None
    assert set(seen) == set(project.workflow.tasks)


def test_put_reopens(project: Project) -> None:
    task = project.tasks_at("Pre-label")[0]
    proceed(project, task.uuid, pathway="nothing found")
    assert project.task(task.uuid).status == "COMPLETED"

    project.put(task.data_hash, "Pre-label")

    assert project.task(task.uuid).status == "REOPENED"
    proceed(project, task.uuid)
    assert project.stage_of(task.uuid) == "Route"


def test_moved_twice_shows_in_the_audit(state: Sandbox, project: Project) -> None:
    task = project.tasks_at("Pre-label")[0]
    proceed(project, task.uuid)
    project.put(task.uuid, "Pre-label")
    proceed(project, task.uuid)

    assert state.audit.moves() == state.audit.moves_from("Pre-label") == {task.uuid: 2}
    assert state.audit.moves("another project") == {}


def test_the_audit_numbers_everything_in_order(state: Sandbox, project: Project) -> None:
    for task in project.tasks_at("Pre-label")[:5]:
        proceed(project, task.uuid)
    with pytest.raises(InvalidArgumentsError):
        proceed(project, "nobody's")

    records = list(state.audit)
    assert [record.number for record in records] == list(range(1, 7))
    assert [record.accepted for record in records] == [True] * 5 + [False]
    assert state.audit.after(4) == records[4:]
    assert state.audit.after(1, limit=2) == records[1:3]
    assert records[0].to_json()["at"] == records[0].at.isoformat()


def test_many_threads_move_each_task_once(state: Sandbox, project: Project) -> None:
    tasks = [task.uuid for task in project.tasks_at("Pre-label")]
    refused: list[str] = []
    start = threading.Barrier(4)

    def move_all() -> None:
        start.wait()
        for uuid in tasks:
            try:
                proceed(project, uuid)
            except InvalidArgumentsError:
                refused.append(uuid)

    threads = [threading.Thread(target=move_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert state.audit.moves() == dict.fromkeys(tasks, 1)
    assert len(refused) == 3 * len(tasks)


def test_helpful_refusals(project: Project) -> None:
    with pytest.raises(NotFoundError, match="there are \\['Pre-label'"):
        project.count_at("Prelabel")
    with pytest.raises(NotFoundError, match="no task or data unit"):
        project.stage_of("unknown")
    with pytest.raises(KeyError, match="'Object', 'Size', 'Note'"):
        project.ontology.named("Objekt")


def test_what_is_exported_is_what_is_importable() -> None:
    assert sorted(package.__all__) == package.__all__
    for name in package.__all__:
        assert getattr(package, name)


STATE_MODULES = (
    "state",
    "projects",
    "workflow",
    "label_rows",
    "label_checks",
    "storage",
    "ontologies",
    "media",
    "audit",
)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_the_sandbox_is_a_peer_at_the_other_end_of_a_wire() -> None:
    folder = Path(package.__file__).parent
    imported = {module: imports_of(folder / f"{module.stem}.py") for module in folder.glob("*.py")}

    for module, names in imported.items():
        assert not [n for n in names if n.partition(".")[0] in ("celery_agents", "encord", "celery")], module
        assert not [n for n in names if n.startswith("..")], module


def test_state_knows_no_http() -> None:
    folder = Path(package.__file__).parent
    http = {
        "starlette",
        "uvicorn",
        "http",
        ".app",
        ".calls",
        ".routes",
        ".legacy",
        ".server",
        ".wire",
        ".incoming",
    }
    for name in STATE_MODULES:
        assert not {n.partition(".")[0] or n for n in imports_of(folder / f"{name}.py")} & http, name
