"""The spaces of a data group: each of its parts is labelled in a space of its own, on one label row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .errors import CorruptedLabelError
from .media import MediaSpec
from .storage import DataUnit, Item, Kind

Json = dict[str, Any]
Labels = Mapping[str, Any]
"""What is labelled in one space: by the number of the frame, its objects."""


def spaces(unit: DataUnit, labels: Mapping[str, Labels]) -> Json:
    """The `spaces` of a label row, by the UUID of the part's storage item; empty for what is no data group."""
    return {part.uuid: _space(part, labels.get(part.uuid) or {}) for part in _parts(unit)}


def labels_in(row: Mapping[str, Any], unit: DataUnit) -> Iterator[Any]:
    """The labels of every frame of every space. Raises `CorruptedLabelError` for a space that the unit has not."""
    known = {part.uuid for part in _parts(unit)}
    for space_id, space in (row.get("spaces") or {}).items():
        if space_id not in known:
            raise CorruptedLabelError(f"the space {space_id} is no part of {unit.data_hash}")
        yield from (space.get("labels") or {}).values()


def _parts(unit: DataUnit) -> tuple[Item, ...]:
    return unit.item.children if unit.kind is Kind.GROUP else ()


def _space(part: Item, labels: Labels) -> Json:
    assert part.media is not None, "a data group is made of single files"
    space_type, describe = _SPACES[part.kind]
    child = {"layout_key": part.kind.value, "file_name": part.name, "data_link": f"sandbox/{part.uuid}"}
    return {"space_type": space_type, "child_info": child, "labels": labels, **describe(part.media)}


def _nothing(_media: MediaSpec) -> Json:
    return {}


def _size(media: MediaSpec) -> Json:
    return {"width": media.width, "height": media.height}


def _video(media: MediaSpec) -> Json:
    moving = {"data_duration": media.frames / media.fps, "data_fps": media.fps}
    return {**_size(media), **moving, "number_of_frames": media.frames}


_SPACES: Mapping[Kind, tuple[str, Callable[[MediaSpec], Json]]] = {
    Kind.IMAGE: ("image", _size),
    Kind.VIDEO: ("video", _video),
    Kind.PLAIN_TEXT: ("text", _nothing),
}
"""Of each kind that a part may be: what its space is called, and what is told of it."""
