"""The whole state of a sandbox: users, projects, datasets, ontologies, storage and the audit. Knows no HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

from .audit import Audit
from .errors import InvalidArgumentsError, NotAuthenticatedError, NotFoundError, UnknownKeyError
from .identifiers import Clock, Identifiers, utc_now
from .media import MediaCache
from .ontologies import Editor, Ontology
from .projects import Project, Shared
from .storage import Dataset, DataUnit, Item, Kind, Storage
from .workflow import StageSpec, StageType

OWNER = "owner@sandbox.local"
"""The user to whom everything belongs that the Python API makes."""

STANDARD_WORKFLOW = (
    StageSpec(title="Annotate 1", type=StageType.ANNOTATION, forward="Review 1"),
    StageSpec(title="Review 1", type=StageType.REVIEW, forward="Complete", backward="Annotate 1"),
    StageSpec(title="Complete", type=StageType.DONE),
)
"""What a project gets that is created without a workflow template."""


@dataclass(frozen=True)
class WorkflowTemplate:
    """A workflow under a hash that `create_project` takes."""

    template_hash: str
    title: str
    stages: tuple[StageSpec, ...]


class Sandbox:
    """Everything the server knows. Made by the builder methods below or through the wire."""

    def __init__(
        self, *, seed: int = 0, clock: Clock = utc_now, page_size: int = 100, label_limit: int = 1000
    ) -> None:
        """`seed` makes all identifiers and media reproducible; `page_size` is for task listings."""
        self.lock = RLock()
        self.clock = clock
        self.audit = Audit(clock)
        self.identifiers = Identifiers(seed)
        self.storage = Storage(self.identifiers, clock)
        self.media = MediaCache()
        self.projects: dict[str, Project] = {}
        self.datasets: dict[str, Dataset] = {}
        self.ontologies: dict[str, Ontology] = {}
        self.templates: dict[str, WorkflowTemplate] = {}
        self._keys: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._shared = Shared(self.identifiers, clock, self.lock, self.audit, page_size, label_limit)

    # Users

    def add_key(self, public_key: str, who: str = OWNER) -> None:
        """Let the holder of this key (64 hexadecimal digits) in as `who`."""
        self._keys[public_key] = who

    def add_token(self, who: str = OWNER) -> str:
        """A bearer token that stands for `who`."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = who
        return token

    def user_of_key(self, public_key: str) -> str:
        """Whose key this is. Raises `UnknownKeyError`."""
        who = self._keys.get(public_key)
        if who is None:
            raise UnknownKeyError("the public key is not registered")
        return who

    def user_of_token(self, token: str) -> str:
        """Whose bearer token this is. Raises `NotAuthenticatedError`."""
        who = self._tokens.get(token)
        if who is None:
            raise NotAuthenticatedError("the bearer token is not known")
        return who

    # Building

    def editor(self) -> Editor:
        """A builder for an ontology's structure."""
        return Editor(self.identifiers)

    def add_ontology(
        self, title: str, structure: Mapping[str, Any], *, description: str = "", who: str = OWNER
    ) -> Ontology:
        """Store an ontology; `structure` is the SDK's editor format, see `Editor`."""
        with self.lock:
            now = self.clock()
            ontology = Ontology(self.identifiers.uuid(), title, description, structure, now, now, who)
            self.ontologies[ontology.ontology_hash] = ontology
            return ontology

    def add_dataset(
        self, title: str, *, description: str = "", mirror_folder: bool = True, who: str = OWNER
    ) -> Dataset:
        """Make an empty dataset with a storage folder behind it."""
        with self.lock:
            folder, now = self.storage.add_folder(title, who), self.clock()
            dataset_hash = self.identifiers.uuid()
            dataset = Dataset(dataset_hash, title, description, who, folder.uuid, mirror_folder, now, now)
            self.datasets[dataset_hash] = dataset
            return dataset

    def add_data_units(
        self, dataset: Dataset, kinds: Iterable[Kind], *, names: Iterable[str] | None = None
    ) -> list[DataUnit]:
        """Add one data unit of each kind, with generated media; projects that use the dataset get tasks."""
        with self.lock:
            kinds = list(kinds)
            chosen = (
                list(names) if names is not None else [self._name(dataset, n, k) for n, k in enumerate(kinds)]
            )
            return [
                self.link_item(
                    dataset,
                    self.storage.add_item(dataset.folder_uuid, kind, name, dataset.creator_email),
                )
                for kind, name in zip(kinds, chosen, strict=True)
            ]

    def link_item(self, dataset: Dataset, item: Item) -> DataUnit:
        """Make a data unit of an existing storage item."""
        with self.lock:
            unit = self.storage.data_unit(dataset, item)
            dataset.units[unit.data_hash] = unit
            dataset.last_edited_at = self.clock()
            for project in self.projects.values():
                if dataset.dataset_hash in project.datasets:
                    project.add_unit(unit)
            return unit

    def add_workflow_template(self, title: str, stages: Sequence[StageSpec]) -> WorkflowTemplate:
        """Store a workflow under a hash that the SDK's `create_project` takes."""
        with self.lock:
            template = WorkflowTemplate(self.identifiers.uuid(), title, tuple(stages))
            self.templates[template.template_hash] = template
            return template

    def add_project(
        self,
        title: str,
        *,
        stages: Sequence[StageSpec] = STANDARD_WORKFLOW,
        ontology: Ontology | None = None,
        datasets: Iterable[Dataset] = (),
        description: str = "",
        who: str = OWNER,
    ) -> Project:
        """Make a project; every data unit of its datasets gets a task in the first stage."""
        with self.lock:
            ontology = ontology or self.add_ontology(title, self.editor().structure, who=who)
            project = Project(title, ontology, stages, self._shared, creator=who)
            project.description = description
            self.projects[project.project_hash] = project
            for dataset in datasets:
                project.add_dataset(dataset)
            return project

    # Looking up and taking away

    def project(self, project_hash: str, who: str | None = None) -> Project:
        """The project; with `who`, only for its members. Raises `NotFoundError` or `ForbiddenError`."""
        project = self.projects.get(project_hash)
        if project is None:
            raise NotFoundError(f"no project {project_hash}")
        if who is not None:
            project.check_member(who)
        return project

    def dataset(self, dataset_hash: str) -> Dataset:
        """The dataset. Raises `NotFoundError`."""
        dataset = self.datasets.get(dataset_hash)
        if dataset is None:
            raise NotFoundError(f"no dataset {dataset_hash}")
        return dataset

    def ontology(self, ontology_hash: str) -> Ontology:
        """The ontology. Raises `NotFoundError`."""
        ontology = self.ontologies.get(ontology_hash)
        if ontology is None:
            raise NotFoundError(f"no ontology {ontology_hash}")
        return ontology

    def template(self, template_hash: str) -> WorkflowTemplate:
        """The workflow template. Raises `NotFoundError`."""
        template = self.templates.get(template_hash)
        if template is None:
            raise NotFoundError(f"no workflow template {template_hash}")
        return template

    def remove_project(self, project_hash: str) -> None:
        """Delete a project. Raises `NotFoundError`."""
        with self.lock:
            self.project(project_hash)
            del self.projects[project_hash]

    def remove_dataset(self, dataset_hash: str) -> None:
        """Delete a dataset and detach it everywhere. Raises `NotFoundError`."""
        with self.lock:
            self.dataset(dataset_hash)
            for project in self.projects.values():
                if dataset_hash in project.datasets:
                    project.remove_dataset(dataset_hash)
            del self.datasets[dataset_hash]

    def remove_ontology(self, ontology_hash: str) -> None:
        """Delete an ontology. Raises `NotFoundError`, and `InvalidArgumentsError` while a project uses it."""
        with self.lock:
            ontology = self.ontology(ontology_hash)
            if any(project.ontology is ontology for project in self.projects.values()):
                raise InvalidArgumentsError("the ontology is used by a project")
            del self.ontologies[ontology_hash]

    def remove_data(self, dataset: Dataset, data_hashes: Iterable[str]) -> None:
        """Delete data units from a dataset and from the projects that use it. Raises `NotFoundError`."""
        with self.lock:
            data_hashes = list(data_hashes)
            for data_hash in data_hashes:
                if data_hash not in dataset.units:
                    raise NotFoundError(f"the dataset has no data unit {data_hash}")
            for data_hash in data_hashes:
                dataset.units.pop(data_hash).item.backed_data_units -= 1
                for project in self.projects.values():
                    project.remove_unit(data_hash)

    def _name(self, dataset: Dataset, number: int, kind: Kind) -> str:
        # Every third image is a JPEG, so that both codecs are met.
        extension = "jpg" if kind is Kind.IMAGE and number % 3 == 2 else _EXTENSIONS[kind]
        return f"{kind.value}-{len(dataset.units) + number:05d}{extension and '.' + extension}"


_EXTENSIONS = {
    Kind.IMAGE: "png",
    Kind.IMAGE_GROUP: "",
    Kind.IMAGE_SEQUENCE: "",
    Kind.VIDEO: "mp4",
    Kind.AUDIO: "wav",
    Kind.PLAIN_TEXT: "txt",
    Kind.PDF: "pdf",
    Kind.GROUP: "",
}
