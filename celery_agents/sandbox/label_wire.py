"""Label rows, their metadata and data rows in the JSON shapes of Encord's legacy API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .label_rows import LabelRow
from .media import MediaCache
from .projects import ListedRow
from .spaces import spaces
from .storage import DataUnit, Frame, Kind
from .wire import Json, Urls, facts

_TIME = "%Y-%m-%d %H:%M:%S"
_FLAT = frozenset({"image", "img_group", "group"})


@dataclass(frozen=True, kw_only=True)
class Includes:
    """What a listing of label rows was asked to add."""

    workflow_graph_node: bool = True
    client_metadata: bool = False
    images_data: bool = False


@dataclass(frozen=True, kw_only=True)
class FeatureFilter:
    """Which features a read shows; None shows all."""

    objects: Collection[str] | None = None
    classifications: Collection[str] | None = None

    def shows_object(self, entry: Mapping[str, Any]) -> bool:
        """Whether an object is shown."""
        return self.objects is None or entry.get("featureHash") in self.objects

    def shows_classification(self, entry: Mapping[str, Any]) -> bool:
        """Whether a classification is shown."""
        return self.classifications is None or entry.get("featureHash") in self.classifications


def time(at: datetime | None) -> str | None:
    """An instant as the legacy API writes it, in UTC."""
    return None if at is None else at.strftime(_TIME)


def metadata(listed: ListedRow, includes: Includes, cache: MediaCache) -> Json:
    """`LabelRowMetadata`."""
    unit, row, task, stage = listed.unit, listed.row, listed.task, listed.stage
    known = facts(unit.item, cache)
    node = {"uuid": stage.uuid, "title": stage.title} if stage else None
    return {
        "label_hash": row.label_hash if row else None,
        "created_at": time(row.created_at) if row else None,
        "last_edited_at": time(row.last_edited_at) if row else None,
        "branch_name": listed.branch,
        "data_hash": unit.data_hash,
        "group_hash": None,
        "dataset_hash": unit.dataset_hash,
        "dataset_title": unit.dataset_title,
        "data_title": unit.title,
        "data_type": unit.data_type.upper(),
        "data_link": _stored_at(unit),
        "label_status": row.status if row else "NOT_LABELLED",
        "annotation_task_status": _task_status(listed),
        "workflow_graph_node": node if includes.workflow_graph_node else None,
        "is_shadow_data": False,
        "number_of_frames": unit.number_of_frames,
        "duration": known["duration"],
        "frames_per_second": known["fps"],
        "height": known["height"],
        "width": known["width"],
        **_sound(known),
        "spaces": spaces(unit, {}),
        "task_uuid": task.uuid if task else None,
        "priority": task.priority if task else None,
        "client_metadata": unit.item.client_metadata if includes.client_metadata else None,
        "images_data": _images(unit) if includes.images_data else None,
        "file_type": known["mimeType"],
        "is_valid": True,
        "backing_item_uuid": unit.item.uuid,
        "assigned_user_email": task.assignee if task else None,
        "last_actioned_by_user_email": task.last_actioned_by if task else None,
    }


def label_row(
    row: LabelRow, unit: DataUnit, shown: FeatureFilter, cache: MediaCache, urls: Urls | None
) -> Json:
    """`LabelRow`; with `urls`, data links are signed."""
    hidden = {entry["objectHash"] for entry in row.objects() if not shown.shows_object(entry)}
    classifications = row.classification_answers.items()
    return {
        "label_hash": row.label_hash,
        "branch_name": row.branch,
        "dataset_hash": unit.dataset_hash,
        "dataset_title": unit.dataset_title,
        "data_title": unit.title,
        "data_hash": unit.data_hash,
        "data_type": unit.data_type,
        "label_status": row.status,
        "annotation_task_status": None,
        "created_at": time(row.created_at),
        "last_edited_at": time(row.last_edited_at),
        "is_valid": True,
        "data_units": {
            frame.hash: _data_unit(number, frame, row, unit, shown, cache, urls)
            for number, frame in enumerate(unit.frames)
        },
        "object_answers": {
            key: answer
            for key, answer in row.object_answers.items()
            if key not in hidden and ("featureHash" not in answer or shown.shows_object(answer))
        },
        "classification_answers": {
            key: answer for key, answer in classifications if shown.shows_classification(answer)
        },
        "object_actions": {k: v for k, v in row.object_actions.items() if k not in hidden},
        "spaces": spaces(unit, {key: _by_frame(labels, shown) for key, labels in row.space_labels.items()}),
    }


def data_row(unit: DataUnit, cache: MediaCache, *, client_metadata: bool) -> Json:
    """`DataRow`."""
    known = facts(unit.item, cache)
    sequence = unit.kind is Kind.IMAGE_SEQUENCE
    return {
        "data_hash": unit.data_hash,
        "data_title": unit.title,
        "data_type": unit.data_type.upper(),
        "created_at": time(unit.created_at),
        "last_edited_at": time(unit.item.last_edited_at),
        "width": known["width"],
        "height": known["height"],
        "file_link": _stored_at(unit),
        "file_size": known["fileSize"],
        "file_type": known["mimeType"],
        "storage_location": 0,
        "frames_per_second": known["fps"],
        "duration": known["duration"],
        "client_metadata": unit.item.client_metadata if client_metadata else None,
        "signed_url": None,
        "images_data": None,
        "is_optimised_image_group": sequence if unit.data_type == "img_group" else None,
        "backing_item_uuid": unit.item.uuid,
    }


def _data_unit(
    number: int,
    frame: Frame,
    row: LabelRow,
    unit: DataUnit,
    shown: FeatureFilter,
    cache: MediaCache,
    urls: Urls | None,
) -> Json:
    known = facts(frame.item, cache)
    grouped = unit.data_type == "img_group"
    content: Json = {
        "data_hash": frame.hash,
        "data_title": frame.title,
        "data_link": urls.of(frame.item) if urls else f"sandbox/{frame.item.uuid}",
        "data_type": known["mimeType"],
        "data_sequence": str(number) if grouped else 0,
        "labels": _labels(row.labels.get(frame.hash) or {}, flat=unit.data_type in _FLAT, shown=shown),
    }
    return content | _BY_TYPE.get(unit.data_type, _nothing)(known)


def _labels(labels: Mapping[str, Any], *, flat: bool, shown: FeatureFilter) -> Json:
    if flat:
        return _frame(labels, shown)
    return _by_frame(labels, shown)


def _by_frame(labels: Mapping[str, Any], shown: FeatureFilter) -> Json:
    return {number: _frame(content, shown) for number, content in labels.items()}


def _frame(content: Mapping[str, Any], shown: FeatureFilter) -> Json:
    objects = [entry for entry in content.get("objects") or () if shown.shows_object(entry)]
    return {"objects": objects, "classifications": []}


def _size(known: Json) -> Json:
    return {"width": known["width"], "height": known["height"]}


def _moving(known: Json) -> Json:
    return {**_size(known), "data_duration": known["duration"], "data_fps": known["fps"]}


def _sound(known: Json) -> Json:
    return {
        "audio_codec": known["audioCodec"],
        "audio_sample_rate": known["audioSampleRate"],
        "audio_bit_depth": known["audioBitDepth"],
        "audio_num_channels": known["audioNumChannels"],
    }


def _nothing(_known: Json) -> Json:
    return {}


_BY_TYPE: dict[str, Callable[[Json], Json]] = {
    "image": _size,
    "img_group": _size,
    "video": _moving,
    "audio": _sound,
}


def _stored_at(unit: DataUnit) -> str | None:
    return f"sandbox/{unit.item.uuid}" if unit.item.media else None


def _task_status(listed: ListedRow) -> str | None:
    if listed.task is None:
        return None
    return "COMPLETED" if listed.task.status == "COMPLETED" else "QUEUED"


def _images(unit: DataUnit) -> list[Json]:
    return [
        {
            "index": number,
            "title": frame.title,
            "file_type": frame.item.media.mime_type if frame.item.media else None,
            "height": frame.item.media.height if frame.item.media else None,
            "width": frame.item.media.width if frame.item.media else None,
            "image_hash": frame.hash,
        }
        for number, frame in enumerate(unit.frames)
    ]
