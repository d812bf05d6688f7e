"""The Encord types that agents may ask for by annotation: one bulk loader per type, in one registry.

A new injectable type is one function here. It gets all agent tasks of a batch at once and puts the value for each into
``work.values``; where it fails for one of them, it says so with ``work.fail``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery_agents.isolation import isolate
from celery_agents.progress import Progress
from celery_agents.watch import Unwatched, Watch
from celery_agents.work import Work, still_open

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway


@dataclass(frozen=True, slots=True)
class Loading:
    """What loaders work with."""

    encord: Gateway
    stage: AgentStage
    initialise_options: Mapping[str, Any]
    is_about_everything: Callable[[Exception], bool]
    watch: Watch = field(default_factory=Unwatched)  #: who is told of progress
    defers_writes: bool = False  #: whether what agents write without a bundle waits for the commit


Loader = Callable[[Sequence[Work], Loading], None]


@dataclass(frozen=True, slots=True)
class Provider:
    """How one injectable type is loaded."""

    type_name: str  #: import path of the class, as ``f"{cls.__module__}.{cls.__qualname__}"``
    load: Loader
    needs_label_rows: bool  #: whether ``work.row`` must be there before


AGENT_TASK = "encord.workflow.stages.agent.AgentTask"

PROVIDERS: dict[str, Provider] = {}
#: Those whose value is the same for all agent tasks of a stage, and what it is.
SHARED: dict[str, Callable[[Gateway, AgentStage], Any]] = {}


def provides(type_name: str, *, needs_label_rows: bool = False) -> Callable[[Loader], Loader]:
    """Register a loader for the class with this import path. By name, so that declaring an agent imports no SDK."""

    def register(load: Loader) -> Loader:
        PROVIDERS[type_name] = Provider(type_name, load, needs_label_rows)
        return load

    return register


def needs_label_rows(type_names: Collection[str]) -> bool:
    """Return whether any of these types is loaded by way of the label rows."""
    return any(PROVIDERS[name].needs_label_rows for name in type_names)


def shared_values(type_names: Collection[str], encord: Gateway, stage: AgentStage) -> dict[str, Any]:
    """Return the value of each of these types, which are the same for all agent tasks."""
    return {name: SHARED[name](encord, stage) for name in type_names}


def load(type_names: Collection[str], works: Sequence[Work], loading: Loading) -> None:
    """Load what is needed, and only that, for all *works* together; one that fails is left out of what follows."""
    for name, provider in PROVIDERS.items():
        if name in type_names:
            provider.load(still_open(works), loading)
    if loading.defers_writes:
        for work in still_open(works):
            loading.encord.defer_writes(work.staged, work.row, work.values.get(AGENT_TASK))


@provides(AGENT_TASK)
def _agent_tasks(works: Sequence[Work], loading: Loading) -> None:
    for work in works:
        work.values[AGENT_TASK] = loading.encord.agent_task(work.listed or work.spec, loading.stage)
        work.listed = None


def _same_for_all(type_name: str, value: Callable[[Gateway, AgentStage], Any]) -> None:
    def load_one(works: Sequence[Work], loading: Loading) -> None:
        shared = value(loading.encord, loading.stage)
        for work in works:
            work.values[type_name] = shared

    SHARED[type_name] = value
    provides(type_name)(load_one)


_same_for_all("encord.workflow.stages.agent.AgentStage", lambda _, stage: stage)
_same_for_all("encord.project.Project", lambda encord, _: encord.project)
_same_for_all("encord.user_client.EncordUserClient", lambda encord, _: encord.client)


@provides("encord.http.bundle.Bundle")
def _bundles(works: Sequence[Work], loading: Loading) -> None:  # noqa: ARG001  (a loader's signature)
    for work in works:
        work.values["encord.http.bundle.Bundle"] = work.staged


@provides("celery_agents.progress.Progress")
def _progress(works: Sequence[Work], loading: Loading) -> None:
    for work in works:
        work.progress = Progress(work.spec.uuid, loading.watch)
        work.values["celery_agents.progress.Progress"] = work.progress


@provides("encord.objects.ontology_labels_impl.LabelRowV2", needs_label_rows=True)
def _label_rows(works: Sequence[Work], loading: Loading) -> None:
    def read(some: Sequence[Work]) -> None:
        loading.encord.initialise([work.row for work in some if work.row], loading.initialise_options)

    for work, error in isolate(works, read, loading.is_about_everything):
        work.fail(error, "load")
    for work in still_open(works):
        work.values["encord.objects.ontology_labels_impl.LabelRowV2"] = work.row


@provides("encord.storage.StorageItem", needs_label_rows=True)
def _storage_items(works: Sequence[Work], loading: Loading) -> None:
    def read(some: Sequence[Work]) -> None:
        uuids = {work: work.row.backing_item_uuid for work in some if work.row and work.row.backing_item_uuid}
        items = loading.encord.storage_items(list(uuids.values()))
        for work, uuid in uuids.items():
            work.values["encord.storage.StorageItem"] = items[uuid]

    for work, error in isolate(works, read, loading.is_about_everything):
        work.fail(error, "load")
    for work in still_open(works):
        if "encord.storage.StorageItem" not in work.values:
            work.fail(LookupError(f"Data unit {work.spec.data_hash} has no storage item."), "load")
