"""The routes of the v2 API: each a method, a path and a function from `Incoming` to JSON. No rules here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import wire
from .backlog import TaskFilter
from .errors import MalformedError
from .incoming import Fields, Incoming
from .projects import Project
from .storage import Item
from .wire import Json
from .workflow import Action

PREFIX = "/v2/public/"


@dataclass(frozen=True)
class Route:
    """One call of the v2 API."""

    name: str
    """The stable name for counters, audit and faults."""
    method: str
    pattern: re.Pattern[str]
    answer: Callable[[Incoming], Any]


def find(method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
    """The route for a path below the prefix, and the named parts of the path."""
    for route in _BY_METHOD.get(method, ()):
        match = route.pattern.fullmatch(path)
        if match is not None:
            return route, match.groupdict()
    return None


# Projects


def get_project(call: Incoming) -> Json:
    """`user_client.get_project`, first of two requests."""
    return wire.project(_project(call))


def list_projects(call: Incoming) -> Json:
    """`user_client.list_projects`, of which the exact title is the only filter."""
    title = call.asked("titleEq")
    mine = [p for p in call.state.projects.values() if call.who in p.members and title in (None, p.title)]
    return wire.page([wire.project(project) for project in mine])


def delete_project(call: Incoming) -> None:
    """No SDK method: for tests that throw a project away."""
    _project(call)
    call.state.remove_project(call.parameters["project"])
    _note(call, "projects.delete", project_hash=call.parameters["project"])


def set_status(call: Incoming) -> None:
    """`project.set_status`."""
    project = _project(call)
    project.status = call.fields.text("status")
    _note(call, "projects.set_status", project_hash=project.project_hash, detail={"status": project.status})


def list_project_datasets(call: Incoming) -> Json:
    """`project.list_datasets`."""
    return wire.page([wire.project_dataset(dataset) for dataset in _project(call).datasets.values()])


def set_priorities(call: Incoming) -> None:
    """`LabelRowV2.set_priority`, alone or bundled."""
    project, pairs = _project(call), call.fields.values.get("priorities")
    try:
        priorities = [(str(data_hash), float(value)) for data_hash, value in pairs or ()]
    except (TypeError, ValueError) as error:
        raise MalformedError("priorities must be a list of [data hash, number]") from error
    project.set_priorities(priorities, who=call.who)


# Tasks


def list_tasks(call: Incoming) -> Json:
    """`stage.get_tasks`, one page."""
    chosen = TaskFilter(
        data_hashes=frozenset(call.all_asked("dataHashes")),
        dataset_hashes=frozenset(call.all_asked("datasetHashes")),
        title_contains=call.asked("dataTitleContains"),
        statuses=frozenset(call.all_asked("statuses")),
        assignees=frozenset(call.all_asked("userEmails")),
    )
    tasks, token = _project(call).page(call.parameters["stage"], chosen, call.asked("pageToken"))
    return wire.page([wire.task(task) for task in tasks], token)


def act(call: Incoming) -> None:
    """`task.proceed` and the actions of other stages, alone or bundled."""
    project = _project(call)
    if not isinstance(call.body, list):
        raise MalformedError("the body must be a list of actions")
    project.act(call.parameters["stage"], [_action(Fields(entry)) for entry in call.body], who=call.who)


def move_tasks(call: Incoming) -> None:
    """`task.move`, alone or bundled."""
    project, fields = _project(call), call.fields
    origin, destination = call.parameters["stage"], fields.text("destinationStageUuid")
    project.move(origin, destination, fields.texts("taskUuids"), who=call.who)


# Ontologies


def get_ontology(call: Incoming) -> Json:
    """`user_client.get_ontology`, and the second request of `get_project`."""
    return wire.ontology(call.state.ontology(call.parameters["ontology"]))


def list_ontologies(call: Incoming) -> Json:
    """`user_client.get_ontologies`, of which the exact title is the only filter."""
    title = call.asked("titleEq")
    found = [ontology for ontology in call.state.ontologies.values() if title in (None, ontology.title)]
    return wire.page([wire.ontology(ontology) for ontology in found])


def create_ontology(call: Incoming) -> Json:
    """`user_client.create_ontology`."""
    title, structure = call.fields.text("title"), call.fields.mapping("editor")
    description = call.fields.optional_text("description") or ""
    ontology = call.state.add_ontology(title, structure, description=description, who=call.who)
    _note(call, "ontologies.create", detail={"ontology_hash": ontology.ontology_hash})
    return wire.ontology(ontology)


def save_ontology(call: Incoming) -> None:
    """`ontology.save`."""
    ontology, fields = call.state.ontology(call.parameters["ontology"]), call.fields
    description = fields.optional_text("description") or ""
    ontology.replace(
        title=fields.text("title"),
        description=description,
        editor=fields.mapping("editor"),
        at=call.state.clock(),
    )
    _note(call, "ontologies.save", detail={"ontology_hash": ontology.ontology_hash})


def delete_ontology(call: Incoming) -> None:
    """No SDK method: for tests that throw an ontology away."""
    call.state.remove_ontology(call.parameters["ontology"])
    _note(call, "ontologies.delete", detail=dict(call.parameters))


# Datasets


def create_dataset(call: Incoming) -> Json:
    """`user_client.create_dataset`."""
    fields = call.fields
    dataset = call.state.add_dataset(
        fields.text("title"),
        description=fields.optional_text("description") or "",
        mirror_folder=fields.flag("createBackingFolder", default=True),
        who=call.who,
    )
    _note(call, "datasets.create", detail={"dataset_hash": dataset.dataset_hash})
    folder = dataset.folder_uuid if dataset.has_mirror_folder else None
    return {"datasetUuid": dataset.dataset_hash, "backingFolderUuid": folder}


def list_datasets(call: Incoming) -> Json:
    """`user_client.get_datasets`, of which the exact title is the only filter."""
    title = call.asked("titleEq")
    found = [dataset for dataset in call.state.datasets.values() if title in (None, dataset.title)]
    return {"result": [wire.dataset(dataset) for dataset in found]}


def delete_dataset(call: Incoming) -> None:
    """No SDK method: for tests that throw a dataset away."""
    call.state.remove_dataset(call.parameters["dataset"])
    _note(call, "datasets.delete", detail=dict(call.parameters))


# Storage


def get_item(call: Incoming) -> Json:
    """`user_client.get_storage_item`."""
    return _item(call, call.state.storage.get(call.parameters["item"]), sign=call.asked_flag("signUrl"))


def get_items(call: Incoming) -> Json:
    """`user_client.get_storage_items`, and the bundled `LabelRowV2.initialise_storage_item`."""
    fields = call.fields
    items, sign = call.state.storage.get_many(fields.texts("itemUuids")), fields.flag("signUrls")
    return wire.page([_item(call, item, sign=sign) for item in items])


def list_children(call: Incoming) -> Json:
    """`item.get_child_items`."""
    sign = call.asked_flag("signUrls")
    return wire.page([_item(call, child, sign=sign) for child in _item_in_folder(call).children])


def patch_item(call: Incoming) -> Json:
    """`item.update`."""
    item = _item_in_folder(call)
    call.state.storage.patch(item, call.fields.values)
    _note(call, "storage.patch", detail={"item_uuid": item.uuid, **call.fields.values})
    return _item(call, item, sign=False)


def patch_items(call: Incoming) -> Json:
    """`item.update` in a bundle."""
    patches = call.fields.mapping("itemPatches")
    items = call.state.storage.get_many(patches)
    for item in items:
        call.state.storage.patch(item, Fields(patches[item.uuid]).values)
        _note(call, "storage.patch_bulk", detail={"item_uuid": item.uuid, **patches[item.uuid]})
    return wire.page([_item(call, item, sign=False) for item in items])


def delete_items(call: Incoming) -> Json:
    """`item.delete` and `folder.delete_storage_items`."""
    uuids = call.fields.texts("childUuids")
    for uuid in uuids:
        call.state.storage.get_in(call.parameters["folder"], uuid)
    removed = call.state.storage.remove_items(uuids)
    _note(call, "storage.delete", detail={"item_uuids": uuids})
    return {"removedItemsCount": removed, "removedFoldersCount": 0}


def create_folder(call: Incoming) -> Json:
    """`user_client.create_storage_folder`."""
    description = call.fields.optional_text("description") or ""
    folder = call.state.storage.add_folder(call.fields.text("name"), call.who, description)
    _note(call, "folders.create", detail={"folder_uuid": folder.uuid})
    return wire.folder(folder)


def get_folder(call: Incoming) -> Json:
    """`user_client.get_storage_folder`."""
    return wire.folder(call.state.storage.folder(call.parameters["folder"]))


def list_items(call: Incoming) -> Json:
    """`folder.list_items`, in one page and with the item types as the only filter."""
    types, sign = call.all_asked("itemTypes"), call.asked_flag("signUrls")
    items = call.state.storage.items_in(call.parameters["folder"])
    return wire.page([_item(call, item, sign=sign) for item in items if not types or item.kind in types])


def delete_folder(call: Incoming) -> None:
    """`folder.delete`."""
    call.state.storage.remove_folder(call.parameters["folder"])
    _note(call, "folders.delete", detail=dict(call.parameters))


# Users


def get_bearer_token(call: Incoming) -> Json:
    """`user_client.get_bearer_token`."""
    return {"token": call.state.add_token(call.who)}


def _project(call: Incoming) -> Project:
    return call.state.project(call.parameters["project"], call.who)


def _item(call: Incoming, item: Item, *, sign: bool) -> Json:
    return wire.storage_item(item, call.state.media, call.urls if sign else None)


def _item_in_folder(call: Incoming) -> Item:
    return call.state.storage.get_in(call.parameters["folder"], call.parameters["item"])


def _note(call: Incoming, name: str, **facts: Any) -> None:
    call.state.audit.add(name, accepted=True, who=call.who, **facts)


def _action(fields: Fields) -> Action:
    return Action(
        task_uuid=fields.text("taskUuid"),
        name=fields.text("action"),
        pathway_uuid=fields.optional_text("pathwayUuid"),
        pathway_name=fields.optional_text("pathwayName"),
        assignee=fields.optional_text("assignee"),
    )


def _routes(table: str) -> list[Route]:
    """Read the table below: name, method, path, function. `{name}` in a path is one segment."""
    routes = []
    for line in table.strip().splitlines():
        name, method, path, function = line.split()
        pattern = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path))
        routes.append(Route(name, method, pattern, globals()[function]))
    return routes


ROUTES = _routes("""
    tasks.list          GET     projects/{project}/workflow/stages/{stage}/tasks       list_tasks
    tasks.actions       POST    projects/{project}/workflow/stages/{stage}/actions     act
    tasks.move          POST    projects/{project}/workflow/stages/{stage}/move-tasks  move_tasks
    storage.get         GET     storage/items/{item}                                   get_item
    storage.bulk        POST    storage/items/get-bulk                                 get_items
    storage.children    GET     storage/folders/{folder}/items/{item}/child-items      list_children
    storage.patch       PATCH   storage/folders/{folder}/items/{item}                  patch_item
    storage.patch_bulk  PATCH   storage/items/patch-bulk                               patch_items
    storage.delete      POST    storage/folders/{folder}/items/delete                  delete_items
    folders.create      POST    storage/folders                                        create_folder
    folders.get         GET     storage/folders/{folder}                               get_folder
    folders.items       GET     storage/folders/{folder}/items                         list_items
    folders.delete      DELETE  storage/folders/{folder}                               delete_folder
    priorities.set      POST    projects/{project}/priorities                          set_priorities
    projects.get        GET     projects/{project}                                     get_project
    projects.list       GET     projects                                               list_projects
    projects.delete     DELETE  projects/{project}                                     delete_project
    projects.datasets   GET     projects/{project}/datasets                            list_project_datasets
    projects.set_status PUT     projects/{project}/status                              set_status
    ontologies.get      GET     ontologies/{ontology}                                  get_ontology
    ontologies.list     GET     ontologies                                             list_ontologies
    ontologies.create   POST    ontologies                                             create_ontology
    ontologies.save     PUT     ontologies/{ontology}                                  save_ontology
    ontologies.delete   DELETE  ontologies/{ontology}                                  delete_ontology
    datasets.create     POST    datasets                                               create_dataset
    datasets.list       GET     datasets/list                                          list_datasets
    datasets.delete     DELETE  datasets/{dataset}                                     delete_dataset
    users.bearer_token  GET     user/bearer-token                                      get_bearer_token
""")
"""Every v2 call that is emulated. The deletes of projects, datasets and ontologies are an extension."""

_BY_METHOD: Mapping[str, list[Route]] = {
    method: [route for route in ROUTES if route.method == method]
    for method in {route.method for route in ROUTES}
}
