"""A project's workflow: its stages and pathways, the agent tasks in them, and how they move.

Two rules hold everywhere. An action names a stage and a task, and is refused when the task is not there (any
more). A request of several actions is planned in full before the first is applied, so that it is applied
as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from .backlog import Backlog, Task, TaskFilter, place_in, token_for
from .errors import InvalidArgumentsError, NotFoundError
from .identifiers import Identifiers


class StageType(StrEnum):
    """Encord's stage types, as far as an agent project meets them."""

    AGENT = "AGENT"
    ANNOTATION = "ANNOTATION"
    REVIEW = "REVIEW"
    CONSENSUS_ANNOTATION = "CONSENSUS_ANNOTATION"
    CONSENSUS_REVIEW = "CONSENSUS_REVIEW"
    DONE = "DONE"


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A stage as a project's author writes it, naming other stages by title."""

    title: str
    type: StageType = StageType.AGENT
    pathways: Mapping[str, str] = field(default_factory=dict)
    """For an agent stage: pathway name to the title of the stage it leads to."""
    forward: str | None = None
    """For annotation and review: where a submitted or approved task goes."""
    backward: str | None = None
    """For review: where a rejected task goes."""


@dataclass(frozen=True)
class Pathway:
    """A way out of an agent stage."""

    uuid: str
    title: str
    destination_uuid: str


@dataclass(frozen=True)
class Stage:
    """A stage with everything resolved to UUIDs."""

    uuid: str
    title: str
    type: StageType
    pathways: tuple[Pathway, ...]
    forward_uuid: str | None
    backward_uuid: str | None

    def pathway(self, *, uuid: str | None, name: str | None) -> Pathway:
        """The pathway of this UUID or name. Raises `InvalidArgumentsError` naming those that exist."""
        for pathway in self.pathways:
            if pathway.uuid == uuid or (uuid is None and pathway.title == name):
                return pathway
        known = ", ".join(repr(pathway.title) for pathway in self.pathways)
        raise InvalidArgumentsError(
            f"stage {self.title!r} has no pathway {uuid or name!r}, its pathways are {known}"
        )


@dataclass(frozen=True)
class Action:
    """One element of an actions request."""

    task_uuid: str
    name: str
    pathway_uuid: str | None = None
    pathway_name: str | None = None
    assignee: str | None = None


@dataclass(frozen=True)
class Step:
    """What an accepted action does to its task."""

    task: Task
    action: str
    origin: Stage
    destination: Stage | None = None
    """None when the task stays."""
    pathway: str | None = None
    status: str = "NEW"
    assignee: str | None = None

    @property
    def detail(self) -> dict[str, Any]:
        """The step for the audit."""
        facts = {"action": self.action, "from": self.origin.title, "pathway": self.pathway}
        if self.destination is not None:
            facts["to"] = self.destination.title
        return {key: value for key, value in facts.items() if value is not None}


class Workflow:
    """The stages of one project and the tasks in them."""

    def __init__(self, specs: Sequence[StageSpec], identifiers: Identifiers) -> None:
        """Build the stages; new tasks start in the first. Raises `InvalidArgumentsError` for a bad graph."""
        self._identifiers = identifiers
        self.stages = {stage.uuid: stage for stage in _build(specs, identifiers)}
        self.tasks: dict[str, Task] = {}
        self._by_data: dict[str, Task] = {}
        self._backlogs = {uuid: Backlog() for uuid in self.stages}
        self._arrivals = 0

    @property
    def start(self) -> Stage:
        """The stage in which new tasks begin."""
        return next(iter(self.stages.values()))

    def stage(self, uuid: str) -> Stage:
        """The stage of this UUID. Raises `NotFoundError`."""
        stage = self.stages.get(uuid)
        if stage is None:
            raise NotFoundError(f"the project has no stage {uuid}")
        return stage

    def stage_titled(self, title: str) -> Stage:
        """The stage of this title. Raises `NotFoundError` naming those that exist."""
        for stage in self.stages.values():
            if stage.title == title:
                return stage
        raise NotFoundError(
            f"no stage {title!r}, there are {[stage.title for stage in self.stages.values()]}"
        )

    def task(self, key: str) -> Task:
        """The task of this task UUID or data hash. Raises `NotFoundError`."""
        task = self.tasks.get(key) or self._by_data.get(key)
        if task is None:
            raise NotFoundError(f"no task or data unit {key}")
        return task

    def task_of(self, data_hash: str) -> Task | None:
        """The task of a data unit, if it has one."""
        return self._by_data.get(data_hash)

    def count(self, stage: Stage) -> int:
        """How many tasks are at the stage."""
        return len(self._backlogs[stage.uuid])

    def tasks_at(self, stage: Stage) -> Iterator[Task]:
        """The tasks at the stage in order of arrival."""
        return self._backlogs[stage.uuid].after(0)

    def named(self, stage: Stage, keys: Iterable[str]) -> list[Task]:
        """Of the tasks of these task UUIDs or data hashes those at the stage, in order of arrival."""
        found = (self.tasks.get(key) or self._by_data.get(key) for key in dict.fromkeys(keys))
        here = [task for task in found if task is not None and task.stage_uuid == stage.uuid]
        return sorted(here, key=lambda task: task.place)

    def add(self, data_hash: str, data_title: str, dataset_hash: str, at: datetime) -> Task:
        """Put a new task in the first stage."""
        task = Task(self._identifiers.uuid(), data_hash, data_title, dataset_hash, at, at)
        self.tasks[task.uuid] = self._by_data[data_hash] = task
        self._enqueue(task, self.start)
        return task

    def remove(self, data_hash: str) -> None:
        """Forget the task of a data unit that left the project."""
        task = self._by_data.pop(data_hash, None)
        if task is not None:
            del self.tasks[task.uuid]
            self._backlogs[task.stage_uuid].remove(task)

    def relocate(self, task: Task, stage: Stage, *, status: str, by: str, at: datetime) -> None:
        """Move a task to another stage, whatever the graph says."""
        self._backlogs[task.stage_uuid].remove(task)
        task.status = "COMPLETED" if stage.type is StageType.DONE else status
        task.assignee, task.last_actioned_by, task.updated_at = None, by, at
        self._enqueue(task, stage)

    def page(
        self, stage: Stage, chosen: TaskFilter, token: str | None, size: int
    ) -> tuple[list[Task], str | None]:
        """Up to `size` tasks after `token` in order of arrival, and the token of the next page if there is one.

        Raises `InvalidArgumentsError` for a token that this did not give out.
        """
        waiting = self._waiting(stage, chosen, place_in(token))
        tasks = list(islice(filter(chosen.admits, waiting), size + 1))
        if len(tasks) <= size:
            return tasks, None
        return tasks[:size], token_for(tasks[size - 1].place)

    def plan(self, stage: Stage, actions: Iterable[Action]) -> list[Step]:
        """Check a whole actions request. Raises `InvalidArgumentsError` or `NotFoundError` if any is refused."""
        seen: set[str] = set()
        steps = []
        for action in actions:
            steps.append(self._step(stage, action, seen))
            seen.add(action.task_uuid)
        return steps

    def plan_moves(self, origin: Stage, destination: Stage, task_uuids: Iterable[str]) -> list[Step]:
        """Check a request that moves tasks straight to another stage; raises as `plan` does."""
        return [
            Step(self._here(origin, uuid), "MOVE", origin, destination, status="NEW")
            for uuid in dict.fromkeys(task_uuids)
        ]

    def apply(self, steps: Iterable[Step], *, by: str, at: datetime) -> None:
        """Carry out planned steps."""
        for step in steps:
            if step.destination is not None:
                self.relocate(step.task, step.destination, status=step.status, by=by, at=at)
            else:
                step.task.assignee, step.task.status, step.task.updated_at = step.assignee, step.status, at

    def _enqueue(self, task: Task, stage: Stage) -> None:
        self._arrivals += 1
        task.place, task.stage_uuid = self._arrivals, stage.uuid
        self._backlogs[stage.uuid].append(task)

    def _waiting(self, stage: Stage, chosen: TaskFilter, last: int) -> Iterator[Task]:
        """The tasks behind a place, in order; where the filter names some, no others are looked at."""
        if chosen.data_hashes:
            return (task for task in self.named(stage, chosen.data_hashes) if task.place > last)
        return self._backlogs[stage.uuid].after(last)

    def _here(self, stage: Stage, task_uuid: str) -> Task:
        task = self.tasks.get(task_uuid)
        if task is None or task.stage_uuid != stage.uuid:
            raise InvalidArgumentsError(f"not all of the tasks are at stage {stage.title!r}")
        return task

    def _step(self, stage: Stage, action: Action, seen: set[str]) -> Step:
        task = self._here(stage, action.task_uuid)
        if task.uuid in seen:
            raise InvalidArgumentsError("one task is named twice in the request")
        if action.name not in _ACTIONS[stage.type]:
            raise InvalidArgumentsError(f"action {action.name!r} does not apply to {stage.type} stages")
        if action.name == "PATHWAY_ACTION":
            pathway = stage.pathway(uuid=action.pathway_uuid, name=action.pathway_name)
            return Step(task, action.name, stage, self.stage(pathway.destination_uuid), pathway.title)
        if action.name in ("ASSIGN", "RELEASE"):
            status = "ASSIGNED" if action.name == "ASSIGN" else "RELEASED"
            return Step(task, action.name, stage, status=status, assignee=action.assignee)
        target = stage.backward_uuid if action.name == "REJECT" else stage.forward_uuid
        if target is None:
            raise InvalidArgumentsError(f"stage {stage.title!r} leads nowhere on {action.name}")
        status = "REOPENED" if action.name == "REJECT" else "NEW"
        return Step(task, action.name, stage, self.stage(target), status=status)


_ACTIONS: Mapping[StageType, frozenset[str]] = {
    StageType.AGENT: frozenset({"PATHWAY_ACTION"}),
    StageType.ANNOTATION: frozenset({"SUBMIT", "ASSIGN", "RELEASE"}),
    StageType.REVIEW: frozenset({"APPROVE", "REJECT", "ASSIGN", "RELEASE"}),
    StageType.CONSENSUS_ANNOTATION: frozenset(),
    StageType.CONSENSUS_REVIEW: frozenset(),
    StageType.DONE: frozenset(),
}


def _build(specs: Sequence[StageSpec], identifiers: Identifiers) -> Iterator[Stage]:
    uuids = {spec.title: identifiers.uuid() for spec in specs}
    if not specs or len(uuids) != len(specs):
        raise InvalidArgumentsError("a workflow has at least one stage, and each title once")

    def resolve(title: str | None) -> str | None:
        if title is not None and title not in uuids:
            raise InvalidArgumentsError(f"no stage {title!r} to lead to, there are {list(uuids)}")
        return None if title is None else uuids[title]

    for spec in specs:
        pathways = tuple(
            Pathway(identifiers.uuid(), name, str(resolve(title))) for name, title in spec.pathways.items()
        )
        yield Stage(
            uuids[spec.title], spec.title, spec.type, pathways, resolve(spec.forward), resolve(spec.backward)
        )
