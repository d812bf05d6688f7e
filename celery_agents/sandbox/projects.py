"""Projects: datasets, ontology, workflow and labels together, and every write to them with its audit record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import RLock
from typing import Any

from .audit import Audit
from .backlog import MAIN_BRANCH, Task, TaskFilter
from .errors import ForbiddenError, InvalidArgumentsError, NotFoundError, SandboxError
from .identifiers import Clock, Identifiers
from .label_checks import check_label_row
from .label_rows import LabelRow, LabelRows, RowFilter
from .ontologies import Ontology
from .storage import Dataset, DataUnit
from .workflow import Action, Stage, StageSpec, StageType, Step, Workflow

SOMEBODY = "somebody.else@sandbox.local"
"""Who moves agent tasks under the caller's hands."""


@dataclass(frozen=True)
class ListedRow:
    """One row of a label row listing."""

    unit: DataUnit
    branch: str
    row: LabelRow | None
    task: Task | None
    stage: Stage | None


@dataclass(frozen=True)
class Shared:
    """What all projects of a sandbox share."""

    identifiers: Identifiers
    clock: Clock
    lock: RLock
    audit: Audit
    page_size: int
    label_limit: int


class Project:
    """A workflow project. Every public method is safe to call from any thread."""

    def __init__(
        self, title: str, ontology: Ontology, stages: Sequence[StageSpec], shared: Shared, *, creator: str
    ) -> None:
        self._shared = shared
        self.project_hash = shared.identifiers.uuid()
        self.title = title
        self.description = ""
        self.status = "inProgress"
        self.ontology = ontology
        self.creator_email = creator
        self.members = {creator}
        self.created_at = self.last_edited_at = shared.clock()
        self.datasets: dict[str, Dataset] = {}
        self.units: dict[str, DataUnit] = {}
        self.workflow = Workflow(stages, shared.identifiers)
        self.labels = LabelRows(shared.identifiers, shared.label_limit)

    # Set-up and membership

    def check_member(self, who: str) -> None:
        """Raises `ForbiddenError` for anybody who was not let in."""
        if who not in self.members:
            raise ForbiddenError(f"{who} is not a member of project {self.project_hash}")

    def add_dataset(self, dataset: Dataset) -> None:
        """Attach a dataset: each of its data units gets a task in the first stage."""
        with self._shared.lock:
            self.datasets[dataset.dataset_hash] = dataset
            for unit in dataset.units.values():
                self.add_unit(unit)

    def add_unit(self, unit: DataUnit) -> None:
        """Give a data unit, just added to one of the datasets, a task in the first stage."""
        with self._shared.lock:
            if unit.data_hash not in self.units:
                self.units[unit.data_hash] = unit
                self.workflow.add(unit.data_hash, unit.title, unit.dataset_hash, self._shared.clock())

    def remove_dataset(self, dataset_hash: str) -> None:
        """Detach a dataset with its tasks and labels. Raises `NotFoundError`."""
        with self._shared.lock:
            dataset = self.datasets.pop(dataset_hash, None)
            if dataset is None:
                raise NotFoundError(f"the project has no dataset {dataset_hash}")
            for data_hash in dataset.units:
                self.remove_unit(data_hash)

    def remove_unit(self, data_hash: str) -> None:
        """Forget a data unit with its task and labels."""
        with self._shared.lock:
            if self.units.pop(data_hash, None) is not None:
                self.workflow.remove(data_hash)
                self.labels.remove(data_hash)

    # Tasks

    def page(self, stage_uuid: str, chosen: TaskFilter, token: str | None) -> tuple[list[Task], str | None]:
        """One page of the tasks at a stage, and the token of the next page."""
        with self._shared.lock:
            stage = self.workflow.stage(stage_uuid)
            return self.workflow.page(stage, chosen, token, self._shared.page_size)

    def act(self, stage_uuid: str, actions: Sequence[Action], *, who: str) -> None:
        """Apply all actions, or none of them and raise."""
        with self._refusing("tasks.actions", who, [action.task_uuid for action in actions]):
            steps = self.workflow.plan(self.workflow.stage(stage_uuid), actions)
            self._apply("tasks.actions", steps, who)

    def move(self, origin_uuid: str, destination_uuid: str, task_uuids: Sequence[str], *, who: str) -> None:
        """Move all tasks straight to another stage, or none of them and raise."""
        with self._refusing("tasks.move", who, task_uuids):
            origin, destination = self.workflow.stage(origin_uuid), self._destination(destination_uuid)
            self._apply("tasks.move", self.workflow.plan_moves(origin, destination, task_uuids), who)

    def set_priorities(self, priorities: Sequence[tuple[str, float]], *, who: str) -> None:
        """Set the priorities of data units' tasks, all or none."""
        with self._shared.lock:
            try:
                tasks = [(self._prioritised(data_hash, value), value) for data_hash, value in priorities]
            except SandboxError as error:
                for data_hash, _ in priorities:
                    self._record("priorities.set", False, who, data_hash, {"reason": error.detail})
                raise
            for task, value in tasks:
                task.priority = value
                self._record("priorities.set", True, who, task.data_hash, {"priority": value})

    # Labels

    def list_rows(self, chosen: RowFilter) -> list[ListedRow]:
        """The label rows, created or not, that the filter admits."""
        with self._shared.lock:
            return list(self._listed(chosen))

    def create_labels(self, data_hashes: Sequence[str], branch: str | None, *, who: str) -> list[LabelRow]:
        """The label rows of these data units, made where they do not exist yet."""
        with self._shared.lock:
            self.labels.check_limit(data_hashes)
            try:
                units = [self._unit(data_hash) for data_hash in data_hashes]
            except SandboxError as error:
                for data_hash in data_hashes:
                    self._record("labels.create", False, who, data_hash, {"reason": error.detail})
                raise
            return [self._created(unit, branch or MAIN_BRANCH, who) for unit in units]

    def get_labels(self, label_hashes: Sequence[str]) -> list[LabelRow]:
        """The label rows of these hashes. Raises `NotFoundError`."""
        with self._shared.lock:
            self.labels.check_limit(label_hashes)
            rows = [self.labels.get(label_hash) for label_hash in label_hashes]
            for row in rows:
                row.read_at_stage = self._stage_uuid(row.data_hash)
            return rows

    def save_labels(
        self, label_hashes: Sequence[str], contents: Sequence[Mapping[str, Any]], *, strictly: bool, who: str
    ) -> None:
        """Replace label rows as a whole; one bad row refuses them all."""
        with self._shared.lock:
            try:
                rows = self._checked(label_hashes, contents, strictly=strictly)
            except SandboxError as error:
                for label_hash in label_hashes:
                    self._refuse_save(label_hash, who, error.detail)
                raise
            for row, content in zip(rows, contents, strict=True):
                self._saved(row, content, who)

    # What tests and reports ask

    def stage_of(self, key: str) -> str:
        """The title of the stage at which a task is; `key` is its UUID or its data hash."""
        with self._shared.lock:
            return self.workflow.stages[self.workflow.task(key).stage_uuid].title

    def task(self, key: str) -> Task:
        """The task of this task UUID or data hash."""
        with self._shared.lock:
            return self.workflow.task(key)

    def tasks_at(self, title: str) -> list[Task]:
        """The tasks at the stage of this title, in order of arrival."""
        with self._shared.lock:
            return list(self.workflow.tasks_at(self.workflow.stage_titled(title)))

    def counts(self) -> dict[str, int]:
        """How many tasks are at each stage, by title."""
        with self._shared.lock:
            return {stage.title: self.workflow.count(stage) for stage in self.workflow.stages.values()}

    def count_at(self, title: str) -> int:
        """How many tasks are at the stage of this title."""
        with self._shared.lock:
            return self.workflow.count(self.workflow.stage_titled(title))

    def labels_of(self, data_hash: str, branch: str = MAIN_BRANCH) -> LabelRow | None:
        """The label row of a data unit, or None before it is created."""
        with self._shared.lock:
            return self.labels.of(data_hash, branch)

    def put(self, key: str, title: str, *, who: str = SOMEBODY, status: str = "REOPENED") -> None:
        """Put a task at the stage of this title, as a person with the web app could."""
        with self._shared.lock:
            task, stage = self.workflow.task(key), self.workflow.stage_titled(title)
            detail = {"from": self.stage_of(key), "put": stage.title}
            self.workflow.relocate(task, stage, status=status, by=who, at=self._shared.clock())
            self._record("sandbox.put", True, who, task.data_hash, detail, task_uuid=task.uuid)

    def interfere(self, stage_uuid: str, task_uuids: Sequence[str] | None, count: int) -> None:
        """Let somebody else move up to `count` tasks away from a stage, of those named or of all there."""
        with self._shared.lock:
            stage = self.workflow.stages.get(stage_uuid)
            if stage is None:
                return
            here = (
                self.workflow.tasks_at(stage)
                if task_uuids is None
                else self.workflow.named(stage, task_uuids)
            )
            others = [other for other in self.workflow.stages.values() if other is not stage]
            # The end of the workflow if there is one: nothing picks the task up again from there.
            others.sort(key=lambda other: other.type is not StageType.DONE)
            for task in list(islice(here, count)):
                self.put(task.uuid, others[0].title, status="NEW")

    # Inside

    def _destination(self, uuid: str) -> Stage:
        try:
            return self.workflow.stage(uuid)
        except NotFoundError as error:
            raise InvalidArgumentsError(error.detail) from error

    def _apply(self, call: str, steps: Sequence[Step], who: str) -> None:
        self.workflow.apply(steps, by=who, at=self._shared.clock())
        for step in steps:
            self._record(call, True, who, step.task.data_hash, step.detail, task_uuid=step.task.uuid)

    @contextmanager
    def _refusing(self, call: str, who: str, task_uuids: Sequence[str]) -> Iterator[None]:
        """Hold the lock, and note each task of a request that the rules refuse."""
        with self._shared.lock:
            try:
                yield
            except SandboxError as error:
                for uuid in task_uuids:
                    task = self.workflow.tasks.get(uuid)
                    data_hash = task.data_hash if task else None
                    self._record(call, False, who, data_hash, {"reason": error.detail}, task_uuid=uuid)
                raise

    def _record(
        self,
        call: str,
        accepted: bool,
        who: str,
        data_hash: str | None,
        detail: Mapping[str, Any],
        **more: Any,
    ) -> None:
        facts = {"project_hash": self.project_hash, "data_hash": data_hash, "detail": detail, **more}
        self._shared.audit.add(call, accepted=accepted, who=who, **facts)

    def _unit(self, data_hash: str) -> DataUnit:
        unit = self.units.get(data_hash)
        if unit is None:
            raise NotFoundError(f"the project has no data unit {data_hash}")
        return unit

    def _prioritised(self, data_hash: str, value: float) -> Task:
        if not 0 <= value <= 1:
            raise InvalidArgumentsError(f"priority {value} is not between 0 and 1")
        task = self.workflow.task_of(data_hash)
        if task is None:
            raise InvalidArgumentsError(f"the project has no data unit {data_hash}")
        return task

    def _stage_uuid(self, data_hash: str) -> str | None:
        task = self.workflow.task_of(data_hash)
        return None if task is None else task.stage_uuid

    def _listed(self, chosen: RowFilter) -> Iterator[ListedRow]:
        asked = chosen.data_hashes
        hashes = self.units if asked is None else [hash_ for hash_ in asked if hash_ in self.units]
        for data_hash in hashes:
            unit, task = self.units[data_hash], self.workflow.task_of(data_hash)
            stage = self.workflow.stages[task.stage_uuid] if task else None
            for branch, row in self.labels.branches(data_hash, chosen):
                if chosen.admits(unit, row, stage.title if stage else None):
                    yield ListedRow(unit, branch, row, task, stage)

    def _created(self, unit: DataUnit, branch: str, who: str) -> LabelRow:
        existed = self.labels.of(unit.data_hash, branch) is not None
        row = self.labels.create(unit.data_hash, branch, self._shared.clock())
        row.read_at_stage = self._stage_uuid(unit.data_hash)
        detail = {"branch": branch, "existed": existed}
        self._record("labels.create", True, who, unit.data_hash, detail, label_hash=row.label_hash)
        return row

    def _checked(
        self, label_hashes: Sequence[str], contents: Sequence[Mapping[str, Any]], *, strictly: bool
    ) -> list[LabelRow]:
        self.labels.check_limit(label_hashes)
        if len(label_hashes) != len(contents):
            raise InvalidArgumentsError("there must be one label row for each label hash")
        rows = [self.labels.get(label_hash) for label_hash in label_hashes]
        for row, content in zip(rows, contents, strict=True):
            if content.get("data_hash") != row.data_hash:
                raise InvalidArgumentsError(
                    f"label row {row.label_hash} is not of {content.get('data_hash')}"
                )
            check_label_row(content, self._unit(row.data_hash), self.ontology, strictly=strictly)
        return rows

    def _saved(self, row: LabelRow, content: Mapping[str, Any], who: str) -> None:
        row.replace(content, by=who, at=self._shared.clock())
        at = self._stage_uuid(row.data_hash)
        detail = {
            "objects": sum(1 for _ in row.objects()),
            "classifications": len(row.classification_answers),
            "stage": self.workflow.stages[at].title if at else None,
            "late": at != row.read_at_stage,
        }
        self._record("labels.save", True, who, row.data_hash, detail, label_hash=row.label_hash)

    def _refuse_save(self, label_hash: str, who: str, reason: str) -> None:
        try:
            data_hash: str | None = self.labels.get(label_hash).data_hash
        except NotFoundError:
            data_hash = None
        self._record("labels.save", False, who, data_hash, {"reason": reason}, label_hash=label_hash)
