"""The calls of the legacy API: each a query type and method, and a function to JSON. No rules here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ForbiddenError, InvalidArgumentsError, MalformedError
from .incoming import Fields, LegacyIncoming
from .label_rows import LabelRow, RowFilter
from .label_wire import FeatureFilter, Includes, data_row, label_row, metadata
from .projects import Project
from .storage import Dataset
from .wire import Json


@dataclass(frozen=True)
class Query:
    """One call of the legacy API."""

    name: str
    """The stable name for counters, audit and faults."""
    answer: Callable[[LegacyIncoming], Any]


# Label rows


def list_label_rows(call: LegacyIncoming) -> list[Json]:
    """`project.list_label_rows_v2`."""
    fields = call.fields
    chosen = RowFilter(
        data_hashes=_distinct(fields, "data_hashes"),
        label_hashes=_distinct(fields, "label_hashes"),
        statuses=fields.optional_texts("label_statuses"),
        title_eq=fields.optional_text("data_title_eq"),
        title_like=fields.optional_text("data_title_like"),
        stage_eq=fields.optional_text("workflow_graph_node_title_eq"),
        stage_like=fields.optional_text("workflow_graph_node_title_like"),
        edited_before=fields.optional_time("edited_before"),
        edited_after=fields.optional_time("edited_after"),
        branch=fields.optional_text("branch_name"),
        all_branches=fields.flag("include_all_label_branches"),
        include_uninitialised=fields.flag("include_uninitialised_labels"),
        shadow_only=fields.optional_text("shadow_data_state") == "SHADOW_DATA",
    )
    includes = Includes(
        workflow_graph_node=fields.flag("include_workflow_graph_node", default=True),
        client_metadata=fields.flag("include_client_metadata"),
        images_data=fields.flag("include_images_data"),
    )
    return [metadata(listed, includes, call.state.media) for listed in _project(call).list_rows(chosen)]


def create_labels(call: LegacyIncoming) -> Any:
    """`LabelRowV2.initialise_labels` of a row that has no label hash yet."""
    branch = call.fields.optional_text("branch_name")
    rows = _project(call).create_labels(call.hashes, branch, who=call.who)
    return _one_or_many(call, [_label_row(call, row, FeatureFilter()) for row in rows])


def get_labels(call: LegacyIncoming) -> Any:
    """`LabelRowV2.initialise_labels` of a row that has one."""
    shown = FeatureFilter(
        objects=call.fields.optional_texts("include_object_feature_hashes"),
        classifications=call.fields.optional_texts("include_classification_feature_hashes"),
    )
    rows = _project(call).get_labels(call.hashes)
    return _one_or_many(call, [_label_row(call, row, shown) for row in rows])


def save_labels(call: LegacyIncoming) -> bool:
    """`LabelRowV2.save`, alone or bundled."""
    fields = call.fields
    contents = fields.objects("labels") if "multi_request" in fields.values else [fields.values]
    strictly = fields.flag("validate_before_saving")
    _project(call).save_labels(call.hashes, contents, strictly=strictly, who=call.who)
    return True


# Projects


def create_project(call: LegacyIncoming) -> str:
    """`user_client.create_project`."""
    fields, state = call.fields, call.state
    template_hash, ontology_hash = (
        fields.optional_text("workflow_template_id"),
        fields.optional_text("ontology_hash"),
    )
    options: dict[str, Any] = {}
    if template_hash:
        options["stages"] = state.template(template_hash).stages
    project = state.add_project(
        fields.text("title"),
        ontology=state.ontology(ontology_hash) if ontology_hash else None,
        datasets=[state.dataset(dataset_hash) for dataset_hash in fields.texts("dataset_hashes")],
        description=fields.optional_text("description") or "",
        who=call.who,
        **options,
    )
    _note(call, "projects.create", project_hash=project.project_hash)
    return project.project_hash


def delete_project(call: LegacyIncoming) -> bool:
    """`user_client.querier.basic_delete`, by which test suites throw their projects away."""
    for project_hash in call.hashes:
        call.state.project(project_hash, call.who)
        call.state.remove_project(project_hash)
        _note(call, "projects.delete", project_hash=project_hash)
    return True


def add_datasets(call: LegacyIncoming) -> bool:
    """`project.add_datasets`."""
    project = _project(call)
    for dataset in [call.state.dataset(dataset_hash) for dataset_hash in call.fields.texts("dataset_hashes")]:
        project.add_dataset(dataset)
    _note(call, "projects.add_datasets", project_hash=project.project_hash, detail=dict(call.fields.values))
    return True


def remove_datasets(call: LegacyIncoming) -> bool:
    """`project.remove_datasets`."""
    project = _project(call)
    for dataset_hash in call.hashes:
        project.remove_dataset(dataset_hash)
    detail = {"dataset_hashes": call.hashes}
    _note(call, "projects.remove_datasets", project_hash=project.project_hash, detail=detail)
    return True


# Datasets


def get_dataset(call: LegacyIncoming) -> Json:
    """`user_client.get_dataset`."""
    dataset, settings = _dataset(call), Fields(call.fields.mapping("dataset_access_settings"))
    answer: Json = {
        "dataset_hash": dataset.dataset_hash,
        "title": dataset.title,
        "description": dataset.description,
        "dataset_type": "CORD_STORAGE",
        "backing_folder_uuid": dataset.folder_uuid if dataset.has_mirror_folder else None,
        "data_rows": [],
    }
    if settings.flag("fetch_rows", default=True):
        answer["data_rows"] = _data_rows(call, RowFilter(), settings)
    return answer


def list_data_rows(call: LegacyIncoming) -> list[Json]:
    """`dataset.list_data_rows`."""
    fields = call.fields
    settings = Fields(fields.values.get("dataset_access_settings") or {})
    chosen = RowFilter(
        data_hashes=_distinct(fields, "data_hashes"),
        title_eq=fields.optional_text("title_eq"),
        title_like=fields.optional_text("title_like"),
    )
    rows = _data_rows(call, chosen, settings)
    types = fields.optional_texts("data_types")
    return [row for row in rows if types is None or row["data_type"] in types]


def link_items(call: LegacyIncoming) -> list[Json]:
    """`dataset.link_items`."""
    dataset = _dataset(call)
    items = call.state.storage.get_many(call.fields.texts("item_uuids"))
    linked = {unit.item.uuid for unit in dataset.units.values()}
    if call.fields.optional_text("duplicates_behavior") == "FAIL" and linked & {item.uuid for item in items}:
        raise InvalidArgumentsError("some of the items are linked already")
    units = [call.state.link_item(dataset, item) for item in items if item.uuid not in linked]
    _note(call, "datasets.link_items", detail={"item_uuids": [item.uuid for item in items]})
    return [data_row(unit, call.state.media, client_metadata=False) for unit in units]


def delete_data(call: LegacyIncoming) -> Json:
    """`dataset.delete_data`."""
    call.state.remove_data(_dataset(call), call.hashes)
    _note(call, "datasets.delete_data", detail={"data_hashes": call.hashes})
    return {"success": True}


QUERIES: Mapping[tuple[str, str], Query] = {
    ("labelrowmetadata", "GET"): Query("label_rows.list", list_label_rows),
    ("labelrow", "PUT"): Query("labels.create", create_labels),
    ("labelrow", "GET"): Query("labels.get", get_labels),
    ("labelrow", "POST"): Query("labels.save", save_labels),
    ("project", "POST"): Query("projects.create", create_project),
    ("project", "DELETE"): Query("projects.delete", delete_project),
    ("projectdataset", "POST"): Query("projects.add_datasets", add_datasets),
    ("projectdataset", "DELETE"): Query("projects.remove_datasets", remove_datasets),
    ("dataset", "GET"): Query("datasets.get", get_dataset),
    ("datarows", "GET"): Query("datasets.rows", list_data_rows),
    ("datasetlinkitems", "POST"): Query("datasets.link_items", link_items),
    ("video", "DELETE"): Query("datasets.delete_data", delete_data),
}
"""Every legacy call that is emulated, by query type and method."""


def _project(call: LegacyIncoming) -> Project:
    if call.resource_type != "project":
        raise ForbiddenError("the call needs a project as its resource")
    return call.state.project(call.resource_id, call.who)


def _dataset(call: LegacyIncoming) -> Dataset:
    if call.resource_type != "dataset":
        raise ForbiddenError("the call needs a dataset as its resource")
    return call.state.dataset(call.resource_id)


def _distinct(fields: Fields, name: str) -> Collection[str] | None:
    """Texts in the order asked, among which one is found without a look at all the others."""
    texts = fields.optional_texts(name)
    return None if texts is None else dict.fromkeys(texts)


def _label_row(call: LegacyIncoming, row: LabelRow, shown: FeatureFilter) -> Json:
    unit = _project(call).units[row.data_hash]
    urls = call.urls if call.fields.flag("get_signed_url") else None
    return label_row(row, unit, shown, call.state.media, urls)


def _one_or_many(call: LegacyIncoming, rows: list[Json]) -> Any:
    if call.fields.flag("multi_request"):
        return rows
    if len(rows) != 1:
        raise MalformedError("a single request takes a single uid")
    return rows[0]


def _data_rows(call: LegacyIncoming, chosen: RowFilter, settings: Fields) -> list[Json]:
    with_metadata = settings.flag("fetch_client_metadata")
    return [
        data_row(unit, call.state.media, client_metadata=with_metadata)
        for unit in _dataset(call).units.values()
        if chosen.admits(unit, None, None)
    ]


def _note(call: LegacyIncoming, name: str, **facts: Any) -> None:
    call.state.audit.add(name, accepted=True, who=call.who, **facts)
