"""A sandbox project made for an example, what came of it, and the runners that may run the example on it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch
from zlib import crc32

from encord.project import Project as EncordProject

from celery_agents.dependencies import get_user_client
from celery_agents.sandbox import Editor, Kind, Project, Sandbox, SandboxServer, StageSpec, StageType
from tests.compat import mapping

PUBLISHED = Path(__file__).parent / "published"
DONE = "Complete"
#: What differs from run to run though the same was done.
_VOLATILE = re.compile(r"(created|lastEdited)(At|By)|objectHash|classificationHash")


class Engine(Enum):
    """Who runs it, all stages from here or spec by spec."""

    THEIR_RUNNER = "their Runner"
    THEIR_QUEUE = "their QueueRunner"
    OUR_RUNNER = "our Runner"
    OUR_QUEUE = "our QueueRunner"
    #: What agents depend on and return stays encord-agents'.
    MIXED_QUEUE = "our QueueRunner, with everything else of theirs"
    MIXED_RUNNER = "our Runner, with everything else of theirs"

    @property
    def is_queue(self) -> bool:
        return self in (Engine.THEIR_QUEUE, Engine.OUR_QUEUE, Engine.MIXED_QUEUE)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A published program, and the project that it was written for."""

    name: str
    #: Agent stage to the program's function for it, in order.
    agents: Mapping[str, str]
    #: Pathways of each of these stages; they lead to the next stage, and from the last one to different ends.
    pathways: tuple[str, ...]
    kinds: tuple[Kind, ...]
    names: tuple[str, ...] | None = None
    ontology: Callable[[Editor], Editor] = lambda editor: editor
    #: That of the twin project, if it is another one.
    twin_ontology: Callable[[Editor], Editor] | None = None
    #: What a reader fills in: text in the program, and what stands for it.
    blanks: Callable[[Place], dict[str, str]] = lambda place: {}
    #: What the program takes from elsewhere, such as its models.
    given: Callable[[Place], dict[str, Any]] = lambda place: {}
    modules: Mapping[str, Any] = field(default_factory=dict)
    #: What people did to the labels before.
    prepare: Callable[[EncordProject], None] = lambda project: None
    #: Whether it reads its command line and runs itself.
    is_program: bool = False


@dataclass(frozen=True)
class Place:
    """A running sandbox with an example's project, and a twin of that."""

    server: SandboxServer
    project: Project
    twin: Project

    def project_of(self, which: Project) -> EncordProject:
        return get_user_client().get_project(which.project_hash)

    def portrait(self) -> dict[str, Any]:
        """Where everything is, and what it is labelled with, in a form that can be compared."""
        return {
            which.title: {unit.title: _portrait(which, data_hash) for data_hash, unit in which.units.items()}
            for which in (self.project, self.twin)
        }


@contextmanager
def a_place_for(example: Example) -> Iterator[Place]:
    """The same one each time, but for the server's port."""
    # A seed of its own: agents that belong to no app are known by project and stage in the whole process.
    state = Sandbox(seed=crc32(example.name.encode()))
    dataset = state.add_dataset("Data")
    state.add_data_units(dataset, example.kinds, names=example.names)
    project, twin = (
        state.add_project(
            title,
            stages=_stages(example),
            ontology=state.add_ontology(title, build(state.editor()).structure),
            datasets=[dataset],
        )
        for title, build in (
            ("Project", example.ontology),
            ("Twin", example.twin_ontology or example.ontology),
        )
    )
    with SandboxServer.start(state) as server, patch.dict("os.environ", server.env()):
        place = Place(server, project, twin)
        example.prepare(place.project_of(project))
        yield place


def run(example: Example, engine: Engine, place: Place) -> None:
    """Run the published program, word for word but for what the engine makes necessary."""
    source = (PUBLISHED / f"{example.name}.txt").read_text()
    for blank, filled in example.blanks(place).items():
        assert blank in source, blank
        source = source.replace(blank, filled)
    if engine.is_queue:
        source = _for_queue_runner(source)
    if engine in (Engine.OUR_RUNNER, Engine.OUR_QUEUE):
        source = mapping.with_our_imports(source)
    elif engine in (Engine.MIXED_RUNNER, Engine.MIXED_QUEUE):
        source = _with_our_runner(source)
    # As a module of its own: dataclasses and pydantic look it up by its name.
    module = ModuleType("__main__" if example.is_program else example.name)
    names = vars(module)
    names.update(example.given(place))
    argv = [example.name, "--project-hash", place.project.project_hash]
    with (
        patch.dict(sys.modules, {module.__name__: module, **example.modules}),
        patch.object(sys, "argv", argv),
        suppress(SystemExit),  # how the command lines of both runners end
    ):
        exec(compile(source, example.name, "exec"), names)
        if engine.is_queue:
            for stage, function in example.agents.items():
                _work_off(place.project_of(place.project), stage, names[function])
        elif not example.is_program:
            names["runner"]()


def _for_queue_runner(source: str) -> str:
    """What a reader changes who takes the other runner; the arguments are not known to it there either."""
    source = re.sub(r"\bRunner\b", "QueueRunner", source)
    return re.sub(r", (overwrite=True|pre_execution_callback=\w+)", "", source)


def _with_our_runner(source: str) -> str:
    theirs = re.compile(r"from encord_agents\.tasks import (Depends, )?((Queue)?Runner)\n")
    return theirs.sub(r"from encord_agents.tasks import Depends\nfrom celery_agents import \2\n", source)


def _work_off(project: EncordProject, stage: str, agent: Callable[[Any], str]) -> None:
    """Half of them one by one, the other half together."""
    specs = [task.model_dump_json() for task in project.workflow.get_stage(name=stage).get_tasks()]
    half = len(specs) // 2
    for spec in specs[:half]:
        agent(spec)
    if specs[half:]:
        agent(specs[half:])


def _stages(example: Example) -> list[StageSpec]:
    titles = list(example.agents)
    stages = []
    for title, following in zip(titles, [*titles[1:], None], strict=True):
        ends = {pathway: following or f"End of {pathway}" for pathway in example.pathways}
        stages.append(StageSpec(title=title, pathways=ends))
    return [*stages, *(StageSpec(title=f"End of {each}", type=StageType.DONE) for each in example.pathways)]


def _portrait(project: Project, data_hash: str) -> dict[str, Any]:
    row, task = project.labels_of(data_hash), project.task(data_hash)
    labels: dict[str, Any] = {"stage": project.stage_of(data_hash), "priority": task.priority}
    if row is not None:
        labels["objects"] = _sorted(_object(row, place, entry) for place, entry in _placed(row.labels))
        labels["spoken"] = _sorted(each for each in row.object_answers.values() if each.get("range"))
        labels["classifications"] = _sorted(row.classification_answers.values())
    return labels


def _placed(labels: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for unit, content in labels.items():
        frames = {"": content} if "objects" in content else content
        for number, frame in frames.items():
            for entry in frame.get("objects") or ():
                yield f"{unit}/{number}", entry


def _object(row: Any, place: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"place": place, **entry, "answers": row.object_answers.get(entry["objectHash"])}


def _sorted(entries: Iterable[Any]) -> list[str]:
    return sorted(json.dumps(_steady(entry), sort_keys=True) for entry in entries)


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if not _VOLATILE.fullmatch(key)}
    return [_steady(each) for each in value] if isinstance(value, list) else value
